"""Files of rows: every row is one document, told by the columns that hold its text.

Without named columns a row must be in a known format: the question of an Alpaca, ShareGPT or chat
row is the title, what follows it the text; a row with a column ``text`` is that text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from llmpipe.documents import plain
from llmpipe.documents.model import Scalar
from llmpipe.documents.parts import clean, one_line, scalars
from llmpipe.formats import detect, to_chat
from llmpipe.formats.message import (
    MissingColumnError,
    RowError,
    UnusableRowError,
    missing_column,
    text_column,
)
from llmpipe.formats.records import read_rows

READ_AS_TEXT = {
    "messages": {"messages"},
    "sharegpt": {"conversations"},
    "alpaca": {"instruction", "input", "output", "system"},
    "completion": {"text", "title"},
}
"""The columns of known formats that are no metadata."""


class Columns(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which columns of a row make a document."""

    text: tuple[str, ...]
    """Columns with the text, in order, a blank line between them; of several each is named."""
    title: str | None = None
    """Column with the title; without it the document is called after its file and row."""
    id: str | None = None
    """Column that tells rows apart; it stands after `#` in the ids in place of the row's number."""
    metadata: tuple[str, ...] | None = None
    """Columns kept as metadata; without it all others that hold a single value."""


class ReadRow(NamedTuple):
    """A row as text. ``name`` is what stands after ``#`` in its id, ``number`` counts from 1."""

    number: int
    name: str
    title: str
    text: str
    metadata: dict[str, Scalar]


def read(
    path: Path, label: str, columns: Columns | None, tell: Callable[[str], object]
) -> Iterator[ReadRow]:
    """Give the rows of a file as texts; that of a row which says nothing is empty.

    ``tell`` hears in what encoding a table was read that does not say it.

    Raises:
        StageError: the file cannot be read.
        MissingColumnError: the first row, and so likely every other, lacks a column.
        RowError: a row, which is named, does not have what the columns promise.
    """

    def decode(data: bytes) -> str:
        decoded = plain.decode(data, label)
        for remark in decoded.remarks:
            tell(remark)
        return decoded.text

    for number, (line, row) in enumerate(read_rows(path, label, decode=decode), 1):
        try:
            yield _mapped(row, number, columns) if columns else _known(row, number)
        except UnusableRowError:
            yield ReadRow(number, str(number), "", "", {})
        except RowError as error:
            of_all = number == 1 and isinstance(error, MissingColumnError)
            raise (MissingColumnError if of_all else RowError)(
                f"{label}:{line}: {error.message}",
                hint=error.hint or "name the columns: columns: {text: [COLUMN], title: COLUMN}",
            ) from None


def _mapped(row: Mapping[str, Any], number: int, columns: Columns) -> ReadRow:
    texts = {name: clean(_column(row, name)) for name in columns.text}
    title = _column(row, columns.title) if columns.title else ""
    name = one_line(_column(row, columns.id)) if columns.id else str(number)
    if not name:
        raise RowError(f"column {columns.id!r} is empty: it must tell the rows apart")
    taken = {*columns.text, columns.title, columns.id}
    kept = [c for c in row if c not in taken] if columns.metadata is None else columns.metadata
    metadata = scalars({column: row.get(column) for column in kept})
    named = len(texts) > 1  # a number or a word says little without the name of its column
    text = "\n\n".join(
        f"{one_line(name)}: {text}" if named else text
        for name, text in texts.items()
        if text.strip()
    )
    return ReadRow(number, name, one_line(title), text, metadata)


def _column(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        raise missing_column(row, name)
    return text_column(row, name, required=False)


def _known(row: Mapping[str, Any], number: int) -> ReadRow:
    format_ = detect(row)
    if format_ is None:
        has = ", ".join(map(repr, row)) or "no columns"
        raise RowError(f"which column holds the text? The row has {has}")
    turns = [turn for turn in to_chat(row, format_) if turn["role"] != "system"]
    title = text_column(row, "title", required=False) if format_ == "completion" else ""
    if len(turns) > 1 and turns[0]["role"] == "user":
        title, turns = turns[0]["content"], turns[1:]
    text = "\n\n".join(clean(turn["content"]) for turn in turns)
    others = {name: value for name, value in row.items() if name not in READ_AS_TEXT[format_]}
    return ReadRow(number, str(number), one_line(title), text, scalars(others))
