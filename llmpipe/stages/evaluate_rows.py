"""Read the held-out rows of an ``evaluate`` stage: chats with a question and a reference answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llmpipe.backends.reasoning import Reply, part, part_unseen
from llmpipe.contracts import Artifact, StageContext
from llmpipe.errors import StageError
from llmpipe.evaluation.sampling import drawn
from llmpipe.formats import RowError, read_conversation
from llmpipe.formats.leakage import question_key, words_of
from llmpipe.formats.mapping import ColumnMap
from llmpipe.formats.records import WrittenFloat, read_rows
from llmpipe.formats.row import expecting
from llmpipe.formats.turn import message_of
from llmpipe.stages.evaluate_config import EvaluateConfig

Chat = list[dict[str, Any]]
"""The turns of a conversation as chat templates take them."""


def read_chats(
    ctx: StageContext[EvaluateConfig],
    source: Artifact,
    columns: ColumnMap | None,
    *,
    answers: bool = False,
) -> list[Chat]:
    """Read rows as chats that ask something and answer it; ``answers`` must follow reasoning.

    Raises:
        StageError: a row cannot be read or has no question or answer, or there are no rows.
    """
    chats: list[Chat] = []
    tools = 0
    system = columns.system if columns else None
    rows = read_rows(source.path, source.label, floats=WrittenFloat)  # as training reads them
    for line, row in expecting(rows, system, source.label):
        try:
            conversation = read_conversation(row, columns)
        except RowError as error:
            place = f"{source.label}:{line}"
            raise StageError(f"{place}: {error.message}", hint=error.hint) from None
        chat = [message_of(turn) for turn in conversation.turns]
        tools += conversation.tools is not None
        if not conversation.prompt():
            raise StageError(
                f"{source.label}:{line}: raw text has no question to answer",
                hint="evaluate on rows with a question and an answer",
            )
        if answers and not reference_answer(chat).answer:
            raise StageError(
                f"{source.label}:{line}: the reference ends inside its reasoning: it has no answer",
                hint="remove the row, or measure only `loss`",
            )
        chats.append(chat)
    if not chats:
        raise StageError(f"{source.label}: no rows to evaluate on")
    if tools:
        ctx.warn(
            f"{source.label}: {tools} rows define tools, which the models do not see here: answers "
            "that call one are compared by text only"
        )
    return chats


def with_shots(ctx: StageContext[EvaluateConfig], chats: list[Chat]) -> list[Chat]:
    """Put the examples before every chat, after its system message."""
    few = ctx.config.few_shot
    if few is None:
        return chats
    source = ctx.input("few_shot.data")
    evaluated = {_question_key(chat) for chat in chats}
    others = [
        chat
        for chat in read_chats(ctx, source, ctx.config.map if few.data == ctx.config.data else None)
        if _question_key(chat) not in evaluated
    ]
    if len(others) < few.count:
        raise StageError(
            f"{source.label}: few_shot wants {few.count} rows; {len(others)} are not evaluated",
            hint="draw the examples from `train`, or lower few_shot.count",
        )
    shots = [
        turn
        for chat in drawn(others, few.count, few.random_seed)
        for turn in chat
        if turn["role"] != "system"
    ]
    return [
        [*chat[:1], *shots, *chat[1:]] if chat[0]["role"] == "system" else [*shots, *chat]
        for chat in chats
    ]


def _question_key(chat: Chat) -> bytes:
    return question_key(words_of([turn["content"] for turn in chat if turn["role"] == "user"]))


def check_json_references(ctx: StageContext[EvaluateConfig], chats: Sequence[Chat]) -> None:
    for chat in chats:
        answer = reference_answer(chat).answer
        try:
            json.loads(answer)
        except ValueError:
            raise StageError(
                f"{ctx.input('data').label}: `json_match` needs reference answers in JSON, "
                f"not {answer[:60]!r}",
                hint="leave json_match out of `metrics`",
            ) from None


def reference_answer(chat: Chat) -> Reply:
    """Split the reference: reasoning at its beginning is not compared."""
    return part(chat[-1]["content"])


def warn_of_unopened(ctx: StageContext[EvaluateConfig], chats: list[Chat]) -> None:
    """Warn of references with a closing tag without an opening one: reasoning, or a tag in text."""
    unopened = [
        chat
        for chat in chats
        if part_unseen(chat[-1]["content"]).answer != reference_answer(chat).answer
    ]
    if unopened:
        ctx.warn(
            f"{ctx.input('data').label}: {len(unopened)} references contain a closing tag of "
            f"reasoning without an opening one, and are compared as a whole, such as "
            f"{unopened[0][-1]['content'][:60]!r}; if reasoning precedes it, add the opening tag"
        )
