"""A prompt without an answer (for GRPO), and the columns that a reward function needs.

Also here: the prompt of preference and labeled rows, which people write in many places. All places
that a row has are read and must agree; what contradicts itself is refused, not guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from llmpipe.formats.conversation import question_turns
from llmpipe.formats.records import to_json
from llmpipe.formats.row import EMPTY, RowError, read_tools, text_column, turns_column
from llmpipe.formats.turn import RULES, Turn, TurnRules, read_turns, with_system, write_turn

PLACES = ("messages", "conversations", "prompt", "question", "instruction", "input")
"""Columns that may hold the prompt."""
CONVERSATIONS = PLACES[:3]
"""Those that may hold a conversation, with the answer or without."""


class Prompt(msgspec.Struct, frozen=True):
    """The turns up to the question, and further columns for a reward function."""

    kind: ClassVar[str] = "a prompt"
    columns: ClassVar[tuple[str, ...]] = ("prompt", "fields", "tools", "row")
    entry: ClassVar[Mapping[str, Any]] = {"type": "axolotl_pairs.prompts"}

    turns: list[Turn]
    fields: dict[str, Any] = msgspec.field(default_factory=dict)
    tools: list[Any] | None = None

    def prompt(self) -> Sequence[Turn]:
        """Return the turns that ask."""
        return [turn for turn in self.turns if turn.role == "user"]

    def said(self) -> Sequence[Turn]:
        """Return all turns and the further columns, for comparing."""
        fields = msgspec.json.encode(self.fields, enc_hook=float, order="deterministic")
        return [*self.turns, Turn("fields", fields.decode())]

    def layout(self, place: str) -> dict[str, str | None]:
        """Return the columns that Axolotl gets, all of text; ``row`` is the row's place."""
        return lay_out(self.turns, self.tools, place, fields=self.fields)

    def write(self) -> dict[str, Any]:
        """Return the row of the format ``prompt``."""
        return write_prompt(self.turns, self.tools, self.fields)


def lay_out(
    turns: Sequence[Turn], tools: list[Any] | None, place: str, **others: Any
) -> dict[str, str | None]:
    """Return the columns that Axolotl gets of a prompt, all of text; ``row`` is the row's place."""
    return {
        "prompt": to_json([write_turn(turn) for turn in turns]),
        **{name: to_json(value) for name, value in others.items()},
        "tools": to_json(tools) if tools else None,
        "row": place,
    }


def write_prompt(
    turns: Sequence[Turn], tools: list[Any] | None, others: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the row of a prompt with other columns, and with ``tools`` where it has some."""
    row = {"prompt": [write_turn(turn) for turn in turns], **others}
    return {**row, "tools": tools} if tools else row


def read_prompt(row: Mapping[str, Any], rules: TurnRules = RULES) -> tuple[Prompt, tuple[str, ...]]:
    """Read a column ``prompt``, text or turns; all other columns are kept.

    Raises:
        RowError: the prompt is missing or has an invalid value.
    """
    turns = with_system(
        question_turns(row, "prompt", rules=rules), text_column(row, "system", required=False)
    )
    fields = {
        name: value for name, value in row.items() if name not in ("prompt", "system", "tools")
    }
    return Prompt(turns, fields, read_tools(row)), ()


class Question(msgspec.Struct, frozen=True):
    """What one place of a row says was asked: ``turns`` without their system text."""

    column: str
    turns: list[Turn]
    system: str | None
    whole: bool
    """Whether it is a conversation, which a single text may quote a turn of."""


def read_prompt_turns(
    row: Mapping[str, Any], rules: TurnRules = RULES, answer: Turn | None = None
) -> tuple[list[Turn], frozenset[str]]:
    """Return the prompt that all places of a row agree on, and the columns that were read.

    Raises:
        RowError: there is no prompt, or two places ask different things.
    """
    asked = list(questions(row, rules, answer))
    if not asked:
        raise RowError(
            "the row needs a prompt",
            hint="as text in prompt, question, instruction or input; or as turns in messages",
            reason="no prompt",
        )
    return agreed(asked, text_column(row, "system", required=False)), frozenset(PLACES)


def questions(
    row: Mapping[str, Any], rules: TurnRules, answer: Turn | None = None
) -> Iterator[Question]:
    """Yield every column that says what was asked.

    Raises:
        RowError: turns end with an answer that is not ``answer``.
    """
    for column in CONVERSATIONS:
        value = turns_column(row, column)
        if isinstance(value, list) and value:
            turns = read_turns(value, column, rules)
            if turns[-1].role == "assistant":
                if answer is None or not same(turns[-1:], [answer]):
                    other = "that is not the one to train" if answer else "and not a question"
                    raise RowError(
                        f"{column} ends with an answer {other}",
                        hint=f"leave the last turn of {column} out",
                        reason="contradiction",
                    )
                turns = turns[:-1]
            if turns:
                yield as_question(column, turns)
        elif value not in EMPTY:
            yield _text_question(column, text_column(row, column))
    if row.get("question"):
        yield _text_question("question", text_column(row, "question"))
    if row.get("instruction"):
        yield Question("instruction", question_turns(row, "instruction", ("input",)), None, False)
    elif row.get("input"):
        yield _text_question("input", text_column(row, "input"))


def as_question(column: str, turns: list[Turn]) -> Question:
    """Return turns as a question, their system text apart."""
    opens = turns[0].role == "system"
    return Question(column, turns[1:] if opens else turns, turns[0].text if opens else None, True)


def agreed(asked: list[Question], system: str | None) -> list[Turn]:
    """Return the turns that all places agree on, the system text first.

    Raises:
        RowError: two places ask different things, or there is no question.
    """
    asked.sort(key=lambda question: not question.whole)
    first = asked[0]
    for other in asked[1:]:
        if not _quotes(other, first):
            raise RowError(
                f"{first.column} and {other.column} ask different things",
                hint=f"leave out one of the columns {first.column} and {other.column}",
                reason="contradiction",
            )
    systems = {question.system for question in asked if question.system is not None}
    systems |= {system} if system and system.strip() else set()
    if len(systems) > 1:
        raise RowError("the row has two different system texts", reason="contradiction")
    if not first.turns or first.turns[-1].role == "assistant":
        raise RowError(
            f"{first.column}: there is no question before the answer", reason="no prompt"
        )
    return with_system(first.turns, systems.pop() if systems else None)


def same(one: Sequence[Turn], other: Sequence[Turn]) -> bool:
    """Return whether turns are equal, white space at their ends aside."""
    return [_said(turn) for turn in one] == [_said(turn) for turn in other]


def _text_question(column: str, text: str) -> Question:
    return Question(column, [Turn("user", text)], None, whole=False)


def _quotes(other: Question, first: Question) -> bool:
    """Return whether ``other`` says the same as ``first``, or quotes its first or last question."""
    if other.whole or not first.whole:
        return same(other.turns, first.turns)
    text = other.turns[0].text.strip()
    said = [turn.text.strip() for turn in first.turns if turn.role == "user"]
    return text in (said[:1] + said[-1:])


def _said(turn: Turn) -> tuple[Any, ...]:
    """Return all of a turn's content; an empty ``name`` or list of calls counts as absent."""
    content = turn.content.strip() if isinstance(turn.content, str) else turn.content
    beside = (turn.name, turn.reasoning_content, turn.tool_call_id, turn.tool_calls)
    return turn.role, content, *(value or None for value in beside)
