"""Preference rows: a question, the answer that was chosen, and the one that was rejected.

Public sets write the question in many ways: as text (``prompt``, ``question``, ``instruction`` with
``input``, ``input`` alone), as turns (``messages``, ``conversations``, ``prompt``), inside
``chosen`` and ``rejected`` as whole conversations, or in several of these at once. All places that
a row has are read and must agree. What contradicts itself is refused, not guessed.

Not covered: rows with more than two answers, and answers of several turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmpipe.formats import alpaca
from llmpipe.formats.conversation import (
    NAMES,
    TURN_KEYS,
    Turn,
    read_tools,
    read_turn,
    read_turns_whole,
)
from llmpipe.formats.message import RowError, system_column, text_column, with_system

CHATS = ("messages", "conversations", "prompt")
"""Columns that may hold the question as turns."""

COLUMNS = (
    *("messages", "conversations", "prompt", "question", "instruction", "input"),
    *("system", "chosen", "rejected", "tools"),
)
"""All columns that a preference row is read from."""


@dataclass(frozen=True, slots=True)
class Preference:
    """The turns up to the question, and the two answers to it, each one assistant's turn."""

    prompt: list[Turn]
    chosen: Turn
    rejected: Turn
    tools: list[Any] | None = None


@dataclass(frozen=True, slots=True)
class _Question:
    """What one place of a row says was asked: ``turns`` without their system text."""

    column: str
    turns: list[Turn]
    system: str | None
    whole: bool
    """Whether it is a conversation, which a single text may quote a turn of."""


def read_preference(row: Mapping[str, Any]) -> Preference:
    """Read a preference row.

    Raises:
        RowError: an answer or the question is missing, or two columns contradict each other.
    """
    before_chosen, chosen = _answer(row, "chosen")
    before_rejected, rejected = _answer(row, "rejected")
    if before_chosen and before_rejected and not _same(before_chosen, before_rejected):
        raise RowError(
            "chosen and rejected differ before their last turn",
            hint="the prompt is their common beginning; only the answer at the end may differ",
        )
    asked = [
        _as_question(column, turns)
        for column, turns in (("chosen", before_chosen), ("rejected", before_rejected))
        if turns
    ]
    asked += _questions(row, chosen)
    if not asked:
        raise RowError(
            "a preference row needs a question beside chosen and rejected",
            hint="as text in prompt, question, instruction or input; as turns in messages; or "
            "chosen and rejected as whole conversations",
        )
    return Preference(_agreed(asked, system_column(row)), chosen, rejected, read_tools(row))


def _answer(row: Mapping[str, Any], column: str) -> tuple[list[Turn], Turn]:
    """Read an answer: the turns that stand before it, and itself as one assistant's turn."""
    value = row.get(column)
    if value is None:
        raise RowError(
            f"a preference row needs {column}",
            hint="chosen and rejected: text, one turn {role: assistant, content: …}, or a "
            "conversation that ends with it",
        )
    if isinstance(value, list):
        turns = read_turns_whole(value, column, NAMES)
    elif isinstance(value, Mapping):
        turns = [read_turn(value, column, NAMES)]
    else:
        text = text_column(row, column, blank=True)
        turns = [{"role": "assistant", "content": text}]
    if turns[-1]["role"] != "assistant":
        raise RowError(
            f"{column} must end with the assistant's turn, not the {turns[-1]['role']}'s"
        )
    return turns[:-1], turns[-1]


def _questions(row: Mapping[str, Any], chosen: Turn) -> Iterator[_Question]:
    """Yield every place outside the answers that says what was asked."""
    for column in CHATS:
        value = row.get(column)
        if isinstance(value, list) and value:
            turns = read_turns_whole(value, column, NAMES)
            if turns[-1]["role"] == "assistant":
                if _said(turns[-1]) != _said(chosen):
                    raise RowError(f"{column} ends with an answer that is not the chosen one")
                turns = turns[:-1]
            if turns:
                yield _as_question(column, turns)
        elif value:
            yield _text_question(column, text_column(row, column))
    if row.get("question"):
        yield _text_question("question", text_column(row, "question"))
    if row.get("instruction"):
        yield _text_question("instruction", alpaca.question(row))
    elif row.get("input"):
        yield _text_question("input", text_column(row, "input"))


def _text_question(column: str, text: str) -> _Question:
    return _Question(column, [{"role": "user", "content": text}], None, whole=False)


def _as_question(column: str, turns: list[Turn]) -> _Question:
    opens = turns[0]["role"] == "system"
    system = str(turns[0].get("content")) if opens else None
    return _Question(column, turns[1:] if opens else turns, system, whole=True)


def _agreed(asked: list[_Question], system: str | None) -> list[Turn]:
    """Return the turns that all places agree on, the system text first.

    Raises:
        RowError: two places ask different things, or nobody asks.
    """
    asked.sort(key=lambda question: not question.whole)
    first = asked[0]
    for other in asked[1:]:
        if not _quotes(other, first):
            raise RowError(
                f"{first.column} and {other.column} ask different things",
                hint=f"leave out one of the columns {first.column} and {other.column}",
            )
    systems = {question.system for question in asked if question.system is not None}
    systems |= {system} if system is not None else set()
    if len(systems) > 1:
        raise RowError("the row has two different system texts")
    if not first.turns or first.turns[-1]["role"] == "assistant":
        raise RowError(f"{first.column}: nobody asks before the answer")
    return with_system(first.turns, systems.pop() if systems else None)


def _quotes(other: _Question, first: _Question) -> bool:
    """Whether ``other`` says the same as ``first``, or quotes its first or last question."""
    if other.whole or not first.whole:
        return _same(other.turns, first.turns)
    text = _text_of(other.turns[0])
    said = [_text_of(turn) for turn in first.turns if turn["role"] == "user"]
    return text in (said[:1] + said[-1:])


def _same(one: list[Turn], other: list[Turn]) -> bool:
    """Whether turns say the same, white space at their ends aside."""
    return [_said(turn) for turn in one] == [_said(turn) for turn in other]


def _said(turn: Turn) -> tuple[Any, ...]:
    """Return all that a turn says; an empty ``name`` or list of calls is none."""
    return turn["role"], _text_of(turn), *(turn.get(key) or None for key in _BESIDE_TEXT)


def _text_of(turn: Turn) -> Any:
    content = turn.get("content")
    return content.strip() if isinstance(content, str) else content


_BESIDE_TEXT = sorted(TURN_KEYS - {"role", "content"})
