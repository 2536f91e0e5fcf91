"""Read rows from JSON: one object a line, an array of objects, or such an array under one key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from llmpipe.errors import StageError
from llmpipe.formats.bad_line import BadLine, OnBad
from llmpipe.formats.opening import BOM, Opening, Row, excerpt, not_utf8
from llmpipe.formats.row import RowError, kind_of

_BARE = re.compile(rb"([:,\[]\s*)(NaN|-?Infinity)(?=\s*[,\]}])")
"""A number that JSON does not have."""

Floats = Callable[[str], float] | None

TURN_COLUMNS = frozenset(
    {"messages", "conversations", "prompt", "chosen", "rejected", "completion", "completions"}
)
"""Columns that hold lists of objects in a row; a list of rows stands under another key."""


def read_lines(
    opening: Opening, label: str, floats: Floats, bad: OnBad
) -> Iterator[tuple[int, Row]]:
    """Yield the object of every line; blank lines are passed over."""
    decode = msgspec.json.Decoder(float_hook=floats).decode
    with opening() as file:
        for number, raw in enumerate(file, 1):
            line = raw.removeprefix(BOM) if number == 1 else raw
            try:
                row = decode(line)
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
                line = line.strip()
                if not line:
                    continue
                text = line.decode("utf-8", "replace")
                bad(BadLine(number, text, _not_json(error, line, label, number)))
                continue
            if type(row) is dict:
                yield number, row
            else:
                text = line.decode("utf-8", "replace")
                bad(BadLine(number, text, _no_object(row, label, number)))


def read_document(
    opening: Opening, label: str, floats: Floats, bad: OnBad
) -> Iterator[tuple[int, Row]]:
    """Yield the objects of one JSON value: an array, or an object with an array under one key.

    They are counted from 1. The whole file is held in memory.

    Raises:
        StageError: the file is not JSON, or the object has no rows under one key.
    """
    with opening() as file:
        content = file.read().removeprefix(BOM)
    decoder = msgspec.json.Decoder(float_hook=floats)
    try:
        value = decoder.decode(content.decode())
    except UnicodeDecodeError as error:
        raise not_utf8(label, content.count(b"\n", 0, error.start) + 1) from None
    except (msgspec.DecodeError, RecursionError) as error:
        hint = _hint_of_bare(content) or "the file must be an array of objects"
        raise StageError(f"{label}: not JSON: {error}", hint=hint) from None
    rows = value if isinstance(value, list) else _under_one_key(value, label)
    for number, row in enumerate(rows, 1):
        if type(row) is dict:
            yield number, row
        else:
            bad(BadLine(number, repr(row), _no_object(row, label, number)))


def is_document(opening: Opening) -> bool:
    """Return whether a file that begins with ``{`` is one multi-line object, or wraps rows."""
    with opening() as file:
        first = file.readline().removeprefix(BOM)
        while first and not first.strip():
            first = file.readline()
        others = any(line.strip() for line in file)
    try:
        value = msgspec.json.decode(first)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return first.strip() in (b"{", b"[") or not first.rstrip().endswith(b"}")
    return not others and isinstance(value, dict) and len(value) == 1 and _rows_of(value) != []


def _under_one_key(value: Any, label: str) -> list[Any]:
    rows = _rows_of(value) if isinstance(value, dict) else []
    if rows and len(value) == 1:
        return rows
    keys = ", ".join(map(repr, value)) if isinstance(value, dict) else ""
    raise StageError(
        f"{label}: one JSON object with the keys {keys or '(none)'}, not rows",
        hint='rows are objects, one a line, or in an array, or {"data": [...]} with nothing beside',
    )


def _rows_of(value: dict[str, Any]) -> list[Any]:
    """Return the lists of objects under keys that no row has."""
    lists = (rows for key, rows in value.items() if key not in TURN_COLUMNS)
    found = [rows for rows in lists if isinstance(rows, list) and rows]
    found = [rows for rows in found if all(isinstance(row, dict) for row in rows)]
    return found[0] if len(found) == 1 else []


def _not_json(error: Exception, line: bytes, label: str, number: int) -> RowError:
    if not _is_utf8(line):
        return not_utf8(label, number)
    return RowError(
        f"{label}:{number}: not JSON: {error}",
        hint=_hint_of_bare(line) or f"the text is {excerpt(line)}",
        reason="not JSON",
    )


def _hint_of_bare(text: bytes) -> str | None:
    """Return what to do about NaN and infinite numbers if they alone make a text no JSON."""
    named = _BARE.search(text)
    try:
        if named:
            msgspec.json.decode(_BARE.sub(rb"\1null", text))
            return f"{named[2].decode()} is not JSON, though Python writes it: write null or a text"
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    return None


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _no_object(row: Any, label: str, number: int) -> RowError:
    kind = {"a list": "an array", "an empty list": "an array", "a text": "a string"}
    found = kind.get(kind_of(row), kind_of(row))
    return RowError(
        f'{label}:{number}: a row must be a JSON object such as {{"text": "…"}}, not {found}',
        reason="not an object",
    )
