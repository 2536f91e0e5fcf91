"""Rows of any known format as the texts that a model reads in training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmpipe.backends.huggingface.chat_tokens import render_chat
from llmpipe.contracts import Artifact
from llmpipe.errors import StageError
from llmpipe.evaluation.sampling import drawn
from llmpipe.formats import Conversation, RowError, Text, read_conversation, read_example
from llmpipe.formats.records import read_rows
from llmpipe.formats.turn import message_of


def sampled_texts(rows: Artifact, count: int, purpose: str) -> list[Conversation | Text]:
    """Return a stable sample of rows.

    Args:
        rows: the rows, in any known format.
        count: how many are drawn.
        purpose: what they are for, for messages: ``to calibrate on``.

    Raises:
        StageError: a row cannot be read, or there are none.
    """
    found = drawn(list(_examples(rows)), count, 0, lambda e: [message_of(t) for t in e.said()])
    if not found:
        raise StageError(f"{rows.label}: no rows {purpose}")
    return found


def text_of(tokenizer: Any, example: Conversation | Text) -> str:
    """Return a row as the model reads it; raw text stays as it is."""
    if isinstance(example, Text):
        return example.text
    chat = [message_of(turn) for turn in example.turns]
    return render_chat(tokenizer, chat, tools=example.tools)


def _examples(rows: Artifact) -> Iterator[Conversation | Text]:
    for line, row in read_rows(rows.path, rows.label):
        try:
            example = read_example(row).example
            yield example if isinstance(example, Text) else read_conversation(row)
        except RowError as error:
            raise StageError(f"{rows.label}:{line}: {error.message}", hint=error.hint) from None
