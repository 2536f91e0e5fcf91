"""Errors about rows, and the checks of single columns that every reader shares."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llmpipe.errors import StageError, did_you_mean

EMPTY: tuple[Any, ...] = (None, "", [], {})
"""Values of a column that count as empty."""


class RowError(StageError):
    """A row that cannot be read or written. The caller adds file and line.

    Attributes:
        reason: a few words that rows with the same problem are counted under.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, reason: str = "wrong shape"
    ) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class UnusableRowError(RowError):
    """A row that is well formed but of no use: an empty answer, for example."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message, reason=reason)


class MissingColumnError(RowError):
    """A row lacks a column."""


def text_column(
    row: Mapping[str, Any], name: str, *, required: bool = True, blank: bool = False
) -> str:
    """Return a column that must hold text. A number becomes its text, as in ``42``.

    Args:
        row: the row.
        name: the column.
        required: whether the row must have it; otherwise absent and null are the empty text.
        blank: whether a required column may hold only white space.

    Raises:
        UnusableRowError: the column is required and blank.
        RowError: the column is missing or holds no text.
    """
    value = row.get(name)
    if value is None and not required:
        return ""
    if name not in row:
        raise missing_column(row, name)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise RowError(f"column {name!r} must hold text, not {kind_of(value)}")
    if required and not blank and not value.strip():
        raise UnusableRowError("empty", f"column {name!r} is empty")
    return value


def list_column(row: Mapping[str, Any], name: str) -> Any:
    """Return a column that holds a list or an object, which a table writes as JSON text.

    Raises:
        RowError: the text begins like JSON and is not.
    """
    value = row.get(name)
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        return json_text(value, f"column {name!r}")
    return value


def turns_column(row: Mapping[str, Any], name: str) -> Any:
    """Return a column that holds turns or text: the turns, too, where they stand there as JSON."""
    value = row.get(name)
    if not isinstance(value, str) or value.lstrip()[:1] != "[":
        return value
    try:
        turns = json.loads(value)
    except (ValueError, RecursionError):
        return value
    has_speaker = [isinstance(t, Mapping) and bool({"role", "from"} & t.keys()) for t in turns]
    return turns if has_speaker and all(has_speaker) else value


def json_text(text: str, place: str) -> Any:
    """Return the value of JSON text.

    Raises:
        RowError: the text is not JSON, or holds what no row can: an infinite number or half of a
            surrogate pair.
    """
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        problem = "it holds half of a surrogate pair"
        raise RowError(f"{place} is not text: {problem}", reason="not JSON") from None
    except (ValueError, RecursionError) as error:
        raise RowError(f"{place} is not JSON: {error}", reason="not JSON") from None
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text} is not finite")
    return number


def read_tools(row: Mapping[str, Any]) -> list[Any] | None:
    """Return the ``tools`` of a row: a list of objects, or that list as JSON text.

    Raises:
        RowError: the column holds anything else.
    """
    value = row.get("tools")
    if value is None:
        return None
    if isinstance(value, str) and value.strip():
        value = json_text(value, "column 'tools'")
    if value in EMPTY or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
        raise RowError(f"column 'tools' must hold a list of objects, not {kind_of(value)}")
    return value


def missing_column(row: Mapping[str, Any], name: str) -> MissingColumnError:
    """Return an error that names the column, those of the row, and the one probably meant."""
    has = ", ".join(map(repr, row)) or "none"
    message = f"no column {name!r}; the row has {has}"
    return MissingColumnError(message, hint=did_you_mean(name, row), reason="missing column")


def expecting(
    rows: Iterable[tuple[int, dict[str, Any]]], column: str | None, label: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the numbered rows of a file, of which each may lack a named column, but not all.

    Raises:
        RowError: after the last row, if none had the column.
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


def left_behind(row: Mapping[str, Any], read: frozenset[str]) -> tuple[str, ...]:
    """Return the columns of a row that are not read, except empty ones."""
    return tuple(
        [name for name in row if name not in read and (row[name] or row[name] not in EMPTY)]
    )


def kind_of(value: Any) -> str:
    """Return the kind of a JSON value, as messages call it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    if value in EMPTY:
        return "an empty list" if isinstance(value, list) else "an empty object"
    return "a list" if isinstance(value, list) else "an object"
