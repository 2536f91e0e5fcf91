"""The row of a question: what `format`, `evaluate_retrieval` and `rag` read, and the offsets."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from llmpipe.retrieval.prompt import ABSTENTION, Message, build_prompt
from llmpipe.stages.generate.methods.qa.filters import Grounded
from llmpipe.stages.generate.methods.qa.passages import Passage


class _Unlimited:
    """A reader of prompts that has room for every passage and knows no control tokens."""

    context = sys.maxsize
    max_tokens = 0

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return 0

    def reads_as_text(self, text: str) -> bool:
        return True


def row_of(
    grounded: Grounded, about: Passage, shown: Passage, *, with_passage: bool, outside: bool
) -> dict[str, Any]:
    """Return the columns of a row.

    Args:
        grounded: the question and its answer.
        about: the passage that answers the question.
        shown: the passage of the row; another one if it does not answer.
        with_passage: whether the messages show the passage.
        outside: whether ``about`` is not among the documents.
    """
    is_answered = about is shown
    said = f"{grounded.answer} [1]" if with_passage else grounded.answer
    messages = _asked(grounded.question, shown, with_passage)
    answer = {"role": "assistant", "content": said if is_answered else ABSTENTION}
    return {
        "question": grounded.question,
        "answer": "" if outside else grounded.answer,
        "answerable": not outside,
        "documents": [] if outside else [about.document.id],
        "document": shown.document.id,
        "passage_id": shown.id,
        "passage": shown.text,
        "passage_start": shown.chunk.start,
        "passage_end": shown.chunk.end,
        "answered_by_passage": is_answered,
        **_offsets(grounded, shown if is_answered else None),
        "messages": [*messages, answer],
    }


def _offsets(grounded: Grounded, passage: Passage | None) -> dict[str, Any]:
    """Return the quote and where it and the answer stand in the passage; null where they do not."""
    quote = grounded.quote if passage else None
    at = grounded.answer_span if passage else None
    return {
        "quote": quote.of(passage.text) if quote and passage else "",
        "quote_start": quote.start if quote else None,
        "quote_end": quote.end if quote else None,
        "answer_start": at.start if at else None,
        "answer_end": at.end if at else None,
    }


def _asked(question: str, passage: Passage, with_passage: bool) -> list[dict[str, str]]:
    if not with_passage:
        return [{"role": "user", "content": question}]
    return build_prompt(question, [passage.as_source()], _Unlimited()).messages
