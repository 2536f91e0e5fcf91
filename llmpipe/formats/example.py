"""Examples: what a row teaches. One case per way to train, each in a module of its own.

    Conversation   turns, tools                       `messages`, `sharegpt`, `alpaca`
    Text           raw text                           `completion`
    Preference     prompt, chosen, rejected           `preference`   (DPO, reward models)
    Labeled       prompt, completion, label          `labeled`     (KTO)
    Prompt         prompt, what a reward needs        `prompt`       (GRPO)

`read_example` finds the case by a row's columns, or by a `ColumnMap`, and names what it ignores.
`write_example` writes a row in a named format, and names what has no place in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from llmpipe.errors import did_you_mean
from llmpipe.formats.conversation import (
    PAIRS,
    Conversation,
    read_chat_columns,
    read_pair,
    read_squad,
    write_alpaca,
)
from llmpipe.formats.labeled import Labeled, read_labeled
from llmpipe.formats.mapping import ColumnMap
from llmpipe.formats.preference import Preference, is_rated, read_preference, read_rated
from llmpipe.formats.prompt import Prompt, read_prompt
from llmpipe.formats.provenance import PROVENANCE
from llmpipe.formats.row import RowError, UnusableRowError, kind_of
from llmpipe.formats.text import Text, read_text, text_of
from llmpipe.formats.turn import RULES, Turn, TurnRules, require_question

Example = Conversation | Text | Preference | Labeled | Prompt

FormatName = Literal[
    "messages", "sharegpt", "alpaca", "completion", "preference", "labeled", "prompt"
]

UNCHANGED: Final = "unchanged"
"""Instead of a format: rows stay as they are."""

NATURAL: Mapping[type[Example], FormatName] = {
    Conversation: "messages",
    Text: "completion",
    Preference: "preference",
    Labeled: "labeled",
    Prompt: "prompt",
}
"""The format that holds all of an example."""

_KNOWN_COLUMNS = ("messages", "conversations", "instruction", "output", "text", "chosen", "prompt")

Reader = Callable[[Mapping[str, Any], TurnRules], tuple[Example, tuple[str, ...]]]


class Reading(NamedTuple):
    """An example, and the names of columns and keys of its row that were left behind."""

    example: Example
    left: Sequence[str]


class Written(NamedTuple):
    """A row, and the names of keys that its format has no place for."""

    row: dict[str, Any]
    lost: Sequence[str]


def detect(row: Mapping[str, Any]) -> FormatName | None:
    """Return the format that a row's columns show, or None if they show none."""
    if "conversations" in row and _is_turns(row["conversations"]):
        return "sharegpt"
    if "chosen" in row and "rejected" in row:
        return "preference"
    if "messages" in row and _is_turns(row["messages"]):
        return "messages"
    if is_rated(row):
        return "preference"
    if "completion" in row and "label" in row:
        return "labeled"
    if any(pair.question in row and pair.answer in row for pair in PAIRS) or _is_squad(row):
        return "alpaca"
    if isinstance(row.get("text"), str):
        return "completion"
    return "prompt" if row.get("prompt") is not None else None


def read_example(
    row: Mapping[str, Any], columns: ColumnMap | None = None, rules: TurnRules = RULES
) -> Reading:
    """Read a row as what its columns, or ``columns``, say it is. A turn may be blank.

    Raises:
        RowError: the format is not known, or a column is missing or has an invalid value.
    """
    if PROVENANCE in row:
        row = {name: value for name, value in row.items() if name != PROVENANCE}
    if columns is None:
        return Reading(*_read_known(row, rules))
    mapped = columns.canonical(row)
    reasoning = mapped.pop("reasoning", "")
    example, left = _read_known(mapped, rules)
    if reasoning and isinstance(example, Conversation):
        *turns, answer = example.turns
        told = Turn(answer.role, answer.content, reasoning_content=reasoning)
        example = Conversation([*turns, told], example.tools)
    used = {*columns.named().values(), *columns.keep}
    unread = (name for name in row if name not in used and row[name] not in (None, "", [], {}))
    return Reading(example, (*unread, *left))


def _read_known(row: Mapping[str, Any], rules: TurnRules) -> tuple[Example, tuple[str, ...]]:
    match detect(row):
        case "sharegpt":
            if "chosen" in row and "rejected" in row:
                return read_preference(row, rules)
            return read_chat_columns(row, "conversations", rules)
        case "messages":
            return read_chat_columns(row, "messages", rules)
        case "preference":
            return read_rated(row, rules) if is_rated(row) else read_preference(row, rules)
        case "labeled":
            return read_labeled(row, rules)
        case "alpaca":
            pair = next((p for p in PAIRS if p.question in row and p.answer in row), None)
            return read_pair(row, pair, rules) if pair else read_squad(row)
        case "completion":
            return read_text(row)
        case "prompt":
            return read_prompt(row, rules)
        case _:
            raise _unknown(row)


def write_example(example: Example, to: FormatName) -> Written:
    """Write an example as a row of the named format.

    Raises:
        RowError: the format cannot hold it.
    """
    if isinstance(example, Conversation):
        if to == "completion":
            text, lost = text_of(example)
            return Written(text.write(), lost)
        if to in ("messages", "sharegpt", "alpaca"):
            require_question(example.turns, to)
            if to == "alpaca":
                return Written(*write_alpaca(example))
            return Written(example.write() if to == "messages" else example.write_sharegpt(), ())
    if NATURAL[type(example)] != to:
        hint = f"use `to: {NATURAL[type(example)]}`"
        if isinstance(example, Text):
            hint += ", or name the user and assistant columns under `map`"
        elif isinstance(example, Prompt):
            hint += ", or name the column of the answer under `map`"
        raise RowError(
            f"{example.kind} cannot become a row of the format {to}",
            hint=hint,
            reason=f"{example.kind}, not {to}",
        )
    return Written(example.write(), ())


def require_usable(example: Example) -> None:
    """Refuse an example that teaches nothing.

    Raises:
        UnusableRowError: a turn of the user or the assistant is blank, there is no answer at the
            end, or two answers are the same.
    """
    if isinstance(example, Text):
        if not example.text.strip():
            raise UnusableRowError("empty", "the text is empty")
        return
    answers: list[Turn] = []
    if isinstance(example, Preference):
        answers = [example.chosen, example.rejected]
        if example.chosen == example.rejected:
            raise UnusableRowError("no preference", "chosen and rejected are the same")
    elif isinstance(example, Labeled):
        answers = [example.completion]
    for turn in [*example.turns, *answers]:
        if turn.role in ("user", "assistant") and turn.is_blank:
            raise UnusableRowError("empty", f"the {turn.role}'s turn is empty")
    last = example.turns[-1].role
    if isinstance(example, Conversation) and last != "assistant":
        raise UnusableRowError("no answer", f"the last turn is the {last}'s")


def read_conversation(
    row: Mapping[str, Any], columns: ColumnMap | None = None, rules: TurnRules = RULES
) -> Conversation:
    """Read a row that must be a conversation and have an answer.

    Raises:
        UnusableRowError: it teaches nothing.
        RowError: the row cannot be read, or is something else.
    """
    example = read_example(row, columns, rules).example
    if not isinstance(example, Conversation):
        raise RowError(
            f"the row is {example.kind}; what is needed is a question and its answer",
            hint="name the columns under `map: {user: …, assistant: …}`",
            reason="no conversation",
        )
    require_usable(example)
    return example


def _is_turns(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip()[:1] == "[")


def _is_squad(row: Mapping[str, Any]) -> bool:
    return "question" in row and "answers" in row and "context" in row


def _unknown(row: Mapping[str, Any]) -> RowError:
    for column in ("messages", "conversations"):
        if column in row:
            return RowError(
                f"column {column!r} must hold a list of turns, not {kind_of(row[column])}"
            )
    if "text" in row:
        return RowError(f"column 'text' must hold text, not {kind_of(row['text'])}")
    has = ", ".join(map(repr, row)) or "no columns"
    strange = (column for column in row if column not in _KNOWN_COLUMNS)
    close = next(filter(None, (did_you_mean(column, _KNOWN_COLUMNS) for column in strange)), None)
    return RowError(
        f"the row is in no known format; it has {has}",
        hint=(f"{close}\n" if close else "")
        + "formats are told by 'messages', 'conversations', 'instruction' with 'output' or "
        + "'response', 'prompt' with 'completion', 'chosen' with 'rejected', or 'text';\n"
        + "a stage of kind format names other columns under `map: {user: …, assistant: …}`",
        reason="unknown format",
    )
