"""Convert files of rows: every row is one document, and columns provide its text.

Without named columns, a row must have a known format. The question of an Alpaca, ShareGPT or chat
row becomes the title and the rest the text; a row with a column ``text`` is that text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from llmpipe.documents import plain
from llmpipe.documents.model import Scalar
from llmpipe.documents.parts import clean, one_line, scalars
from llmpipe.formats import Conversation, Text, detect, read_example
from llmpipe.formats.records import read_rows
from llmpipe.formats.row import (
    MissingColumnError,
    RowError,
    UnusableRowError,
    missing_column,
    text_column,
)

FORMATS = ("messages", "sharegpt", "alpaca", "completion")
"""The formats of rows that are read as texts without named columns."""


class Columns(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which columns of a row make up a document."""

    text: tuple[str, ...]
    """Columns with the text, in order, separated by blank lines. Several columns are labeled with
    their names."""
    title: str | None = None
    """Column with the title. Default: the names of the file and the row."""
    id: str | None = None
    """Column with a unique value per row, which replaces the row number after `#` in ids."""
    metadata: tuple[str, ...] | None = None
    """Columns that become metadata. Default: all others with a single value."""


class ReadRow(NamedTuple):
    """A row as text; ``name`` is the part of its id after ``#``, ``number`` starts at 1."""

    number: int
    name: str
    title: str
    text: str
    metadata: dict[str, Scalar]


def read(
    path: Path, label: str, columns: Columns | None, tell: Callable[[str], object]
) -> Iterator[ReadRow]:
    """Yield the rows of a file as texts; a row that says nothing has an empty text.

    ``tell`` is called with a remark if the encoding of a CSV file had to be guessed.

    Raises:
        StageError: the file cannot be read.
        MissingColumnError: the first row, and so probably every row, lacks a column.
        RowError: a row, which is named, does not fit the columns.
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
        raise RowError(f"column {columns.id!r} is empty: it must distinguish the rows")
    taken = {*columns.text, columns.title, columns.id}
    kept = [c for c in row if c not in taken] if columns.metadata is None else columns.metadata
    metadata = scalars({column: row.get(column) for column in kept})
    named = len(texts) > 1  # a number or word says little without its column name
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
    reading = read_example(row) if detect(row) in FORMATS else None
    if reading is None or not isinstance(reading.example, Conversation | Text):
        has = ", ".join(map(repr, row)) or "no columns"
        raise RowError(f"which column contains the text? The row has {has}")
    example = reading.example
    turns = [turn for turn in example.said() if turn.role != "system"]
    title = text_column(row, "title", required=False) if isinstance(example, Text) else ""
    if len(turns) > 1 and turns[0].role == "user":
        title, turns = turns[0].text, turns[1:]
    text = "\n\n".join(clean(turn.text) for turn in turns)
    read_as_title = {"title"} if isinstance(example, Text) else set()
    others = {name: row[name] for name in reading.left if name in row and name not in read_as_title}
    return ReadRow(number, str(number), one_line(title), text, scalars(others))
