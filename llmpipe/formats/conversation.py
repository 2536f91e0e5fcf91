"""A conversation: turns in order, and the tools that the assistant may call.

Read from ``messages`` and ``conversations`` (turns), and from columns that hold one question and
its answer: Alpaca (``instruction``, ``input``, ``history``, ``output``), Dolly (``context``,
``response``), SQuAD (``question``, ``context``, ``answers``), ``prompt`` with ``completion``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from llmpipe.formats.records import to_json
from llmpipe.formats.row import (
    RowError,
    UnusableRowError,
    kind_of,
    left_behind,
    list_column,
    read_tools,
    text_column,
    turns_column,
)
from llmpipe.formats.turn import (
    RULES,
    Turn,
    TurnRules,
    keys_beside_text,
    read_turn,
    read_turns,
    with_system,
    write_turn,
)

BESIDE = frozenset({"system", "tools"})
READS = {column: BESIDE | {column} for column in ("messages", "conversations")}


class Conversation(msgspec.Struct, frozen=True):
    """Turns in order, and the tools on offer."""

    kind: ClassVar[str] = "a conversation"
    columns: ClassVar[tuple[str, ...]] = ("messages", "tools")
    entry: ClassVar[Mapping[str, Any]] = {"type": "chat_template", "field_messages": "messages"}

    turns: list[Turn]
    tools: list[Any] | None = None

    def prompt(self) -> Sequence[Turn]:
        """Return the turns that ask."""
        return [turn for turn in self.turns if turn.role == "user"]

    def said(self) -> Sequence[Turn]:
        """Return all turns, for comparing the whole example."""
        return self.turns

    def write(self) -> dict[str, Any]:
        """Return the row of the format ``messages``."""
        return _beside({"messages": [write_turn(turn) for turn in self.turns]}, self.tools)

    def layout(self, place: str) -> dict[str, str | None]:
        """Return the columns that Axolotl gets, all of text."""
        turns = to_json([write_turn(turn) for turn in self.turns])
        return {"messages": turns, "tools": to_json(self.tools) if self.tools else None}

    def write_sharegpt(self) -> dict[str, Any]:
        """Return the row of the format ``sharegpt``."""
        turns = [write_turn(turn, sharegpt=True) for turn in self.turns]
        return _beside({"conversations": turns}, self.tools)


def read_chat_columns(
    row: Mapping[str, Any], column: str, rules: TurnRules = RULES
) -> tuple[Conversation, tuple[str, ...]]:
    """Read turns under ``column``, a ``system`` text and ``tools`` beside them.

    Raises:
        RowError: a column or turn has an invalid value.
    """
    turns = read_turns(list_column(row, column), column, rules)
    if len(row) == 1:
        return Conversation(turns), ()
    if "system" in row:
        turns = with_system(turns, text_column(row, "system", required=False))
    return Conversation(turns, read_tools(row)), left_behind(row, READS[column])


class PairColumns(msgspec.Struct, frozen=True):
    """The columns of one question and its answer."""

    question: str
    answer: str
    below: tuple[str, ...] = ()
    """Columns whose text stands below the question, after a blank line."""

    def reads(self) -> frozenset[str]:
        """Return all columns that are read."""
        return frozenset({self.question, self.answer, *self.below, "history"}) | BESIDE


ALPACA = PairColumns("instruction", "output", ("input",))
DOLLY = PairColumns("instruction", "response", ("context", "input"))
COMPLETION = PairColumns("prompt", "completion")
PAIRS = (ALPACA, DOLLY, COMPLETION)


def read_pair(
    row: Mapping[str, Any], columns: PairColumns, rules: TurnRules = RULES
) -> tuple[Conversation, tuple[str, ...]]:
    """Read one question and its answer; an answer may be blank.

    Raises:
        RowError: a column is missing or has an invalid value.
    """
    asked = question_turns(row, columns.question, columns.below, rules)
    turns = [*read_history(row), *asked, read_answer(row, columns.answer, rules)]
    turns = with_system(turns, text_column(row, "system", required=False))
    return Conversation(turns, read_tools(row)), left_behind(row, columns.reads())


def question_turns(
    row: Mapping[str, Any], column: str, below: Sequence[str] = (), rules: TurnRules = RULES
) -> list[Turn]:
    """Return a question as turns: a list of turns as it is, a text as the user's turn."""
    value = turns_column(row, column)
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return read_turns(value, column, rules)
    texts = [text_column(row, column, blank=True)]
    texts += [text_column(row, name, required=False) for name in below]
    return [Turn("user", "\n\n".join(text for text in texts if text.strip()) or texts[0])]


def read_answer(row: Mapping[str, Any], column: str, rules: TurnRules = RULES) -> Turn:
    """Return an answer: a text, one turn, or a list of one turn.

    Raises:
        RowError: it is something else, or not the assistant's.
    """
    value = turns_column(row, column)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, Mapping):
        if isinstance(value, list):
            raise RowError(f"column {column!r} must hold text or one turn, not {kind_of(value)}")
        return Turn("assistant", text_column(row, column, blank=True))
    turn = read_turn(value, column, rules)
    if turn.role != "assistant":
        raise RowError(f"{column} must hold the assistant's turn, not the {turn.role}'s")
    return turn


def read_squad(row: Mapping[str, Any]) -> tuple[Conversation, tuple[str, ...]]:
    """Read a question about a passage; of several answers the first is the answer.

    Raises:
        UnusableRowError: the passage does not answer the question.
        RowError: a column is missing or has an invalid value.
    """
    answers = list_column(row, "answers")
    texts = answers.get("text") if isinstance(answers, Mapping) else answers
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise RowError("column 'answers' must hold an object with the list 'text'")
    if not texts:
        raise UnusableRowError("no answer", "the list of answers is empty")
    context = text_column(row, "context", required=False)
    question = text_column(row, "question")
    asked = f"{context}\n\n{question}" if context.strip() else question
    turns = with_system(
        [Turn("user", asked), Turn("assistant", texts[0])],
        text_column(row, "system", required=False),
    )
    left = left_behind(row, frozenset({"question", "context", "answers"}) | BESIDE)
    keys = [f"answers.{key}" for key in answers if key != "text"] if texts is not answers else []
    others = ["answers after the first"] if set(texts[1:]) - {texts[0]} else []
    return Conversation(turns, read_tools(row)), (*left, *keys, *others)


def read_history(row: Mapping[str, Any]) -> Iterator[Turn]:
    """Yield the earlier turns of a column ``history``: a list of pairs ``[question, answer]``.

    Raises:
        RowError: the column holds anything else.
    """
    value = list_column(row, "history")
    if value in (None, "", []):
        return
    for pair in value if isinstance(value, list) else [value]:
        texts = pair if isinstance(pair, list) else None
        if not texts or len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise RowError("column 'history' must hold a list of pairs [question, answer]")
        yield Turn("user", texts[0])
        yield Turn("assistant", texts[1])


def write_alpaca(conversation: Conversation) -> tuple[dict[str, Any], list[str]]:
    """Return an Alpaca row and the keys that it has no place for.

    Earlier questions and answers become the ``history``.

    Raises:
        RowError: turns do not alternate, or one calls a tool.
    """
    turns = conversation.turns
    system = turns[0].text if turns[0].role == "system" else None
    asked = turns[1:] if system is not None else turns
    roles = [turn.role for turn in asked]
    if len(asked) % 2 or roles != ["user", "assistant"] * (len(asked) // 2) or not asked:
        raise RowError(
            f"an alpaca row holds questions, each with its answer, not {', '.join(roles)}",
            hint="use `to: messages` for conversations",
            reason="does not fit alpaca",
        )
    require_text(conversation, "alpaca")
    *earlier, question, answer = (turn.text for turn in asked)
    row: dict[str, Any] = {"instruction": question, "input": "", "output": answer}
    if earlier:
        row["history"] = [list(pair) for pair in zip(earlier[::2], earlier[1::2], strict=True)]
    if system is not None:
        row["system"] = system
    return row, keys_beside_text(turns)


def require_text(conversation: Conversation, name: str) -> None:
    """Refuse tools and tool calls where a format holds text only.

    Raises:
        RowError: there are some.
    """
    if conversation.tools or any(turn.tool_calls for turn in conversation.turns):
        raise RowError(
            f"a {name} row has no place for tools and tool calls",
            hint="use `to: messages`",
            reason=f"tools do not fit {name}",
        )


def _beside(row: dict[str, Any], tools: list[Any] | None) -> dict[str, Any]:
    return {**row, "tools": tools} if tools else row
