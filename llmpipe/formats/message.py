"""One turn of a conversation, and the checks that every format shares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypedDict

from llmpipe.errors import StageError, did_you_mean

ROLES = ("system", "user", "assistant", "tool")


class Message(TypedDict):
    """One turn: who speaks (one of `ROLES`) and what they say."""

    role: str
    content: str


class RowError(StageError):
    """A row cannot be read or written in a format. The caller adds file and line."""


class UnusableRowError(RowError):
    """A row that is well formed but of no use; ``reason`` is a word or two to count it under."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class MissingColumnError(RowError):
    """A row lacks a column."""


def text_column(
    row: Mapping[str, Any], name: str, *, required: bool = True, blank: bool = False
) -> str:
    """Give a column that must hold text; an absent or null optional column is the empty text.

    ``blank`` lets a required column hold nothing but white space.

    Raises:
        UnusableRowError: the column is blank though required.
        RowError: the column is missing or holds no text.
    """
    value = row.get(name)
    if value is None and not required:
        return ""
    if name not in row:
        raise missing_column(row, name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)  # a column of numbers is a fair answer: 42
    if not isinstance(value, str):
        raise RowError(f"column {name!r} must hold text, not {kind_of(value)}")
    if required and not blank and not value.strip():
        raise UnusableRowError("empty", f"column {name!r} is empty")
    return value


def system_column(row: Mapping[str, Any]) -> str | None:
    """Return the text of a ``system`` column, or None where there is none or it is blank."""
    text = text_column(row, "system", required=False)
    return text if text.strip() else None


def with_system(turns: list[Any], system: str | None) -> list[Any]:
    """Return the turns, opened by a system text that stood beside them.

    A turn is a `Message` or one with further keys.

    Raises:
        RowError: the turns open with another system text.
    """
    if system is None:
        return turns
    if turns and turns[0]["role"] == "system":
        if turns[0].get("content") != system:
            raise RowError("the column 'system' and the first turn are two different system texts")
        return turns
    return [{"role": "system", "content": system}, *turns]


def missing_column(row: Mapping[str, Any], name: str) -> MissingColumnError:
    """Say that a row lacks a column, which ones it has, and which one may have been meant."""
    has = ", ".join(map(repr, row)) or "none"
    message = f"no column {name!r}; the row has {has}"
    return MissingColumnError(message, hint=did_you_mean(name, row))


def expecting(
    rows: Iterable[tuple[int, dict[str, Any]]], column: str | None, label: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Pass on the numbered rows of a file, of which each may lack a named column, but not all.

    Raises:
        RowError: after the last, where none had it.
    """
    if column is None:
        yield from rows
        return
    seen: dict[str, None] = {}
    for number, row in rows:
        seen |= dict.fromkeys(row)
        yield number, row
    if seen and column not in seen:
        has = ", ".join(map(repr, seen))
        message = f"{label}: no row has a column {column!r}; they have {has}"
        raise RowError(message, hint=did_you_mean(column, seen))


def read_turns(
    turns: Any, column: str, role_key: str, text_key: str, roles: Mapping[str, str]
) -> list[Message]:
    """Read a list of turns whose speaker and text stand under the given keys.

    Raises:
        RowError: it is no list of such objects, has no turns, or a speaker is not in ``roles``.
    """
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise RowError(f"column {column!r} must hold a list of turns")
    return [
        _read_turn(turn, f"{column}[{i}]", role_key, text_key, roles)
        for i, turn in enumerate(turns)
    ]


def _read_turn(
    turn: Any, place: str, role_key: str, text_key: str, roles: Mapping[str, str]
) -> Message:
    if not isinstance(turn, Mapping):
        raise RowError(f"{place} must be an object with {role_key!r} and {text_key!r}")
    speaker, text = turn.get(role_key), turn.get(text_key)
    if not isinstance(speaker, str) or not isinstance(text, str):
        lacking = role_key if not isinstance(speaker, str) else text_key
        has = ", ".join(map(repr, turn)) or "nothing"
        raise RowError(f"{place} needs the text {lacking!r}; it has {has}")
    if speaker not in roles:
        raise RowError(
            f"{place}: unknown {role_key} {speaker!r} (known: {', '.join(sorted(roles))})",
            hint=did_you_mean(speaker, roles),
        )
    return {"role": roles[speaker], "content": text}


def kind_of(value: Any) -> str:
    """Name the kind of a JSON value, as messages call it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, list) else "an object"
