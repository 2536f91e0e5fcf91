"""Read tables: CSV, and TSV with tabs. The first line names the columns."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from llmpipe.errors import StageError
from llmpipe.formats.bad_line import BadLine, OnBad
from llmpipe.formats.opening import Opening, Row, not_utf8
from llmpipe.formats.row import RowError

SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
"""What may separate the columns of a table, and what messages call it."""

_DECLARED = re.compile(rb"(?i)(?:\xef\xbb\xbf)?(\"?)sep=([\t !#-&(-/:-@\[-`{-~])\1[ \t,;]*\r?\n")
"""A first line by which spreadsheets say what separates the columns."""


def read_table(
    opening: Opening, label: str, *, is_tsv: bool, bad: OnBad
) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a table with the numbers of their first lines.

    A line ``sep=;`` above the names of the columns says what separates them.

    Raises:
        StageError: the table has no proper head, or cannot be taken apart.
    """
    csv.field_size_limit(sys.maxsize)  # the default of 128 KiB is shorter than some documents
    with opening() as file:
        declared = _DECLARED.match(file.readline(16))
    above = 1 if declared else 0
    separator = declared[2].decode() if declared else "\t" if is_tsv else _separator(opening)
    with _table(opening, above) as file:
        reader = csv.reader(file, delimiter=separator, strict=True)
        start = above + 1
        try:
            columns = next(reader, [])
            _check_columns(columns, f"{label}:{start}")
            start = above + reader.line_num + 1
            for values in reader:
                if values and len(values) == len(columns):
                    yield start, dict(zip(columns, values, strict=True))
                elif values:
                    text = separator.join(values)
                    bad(BadLine(start, text, _uneven(columns, values, separator, label, start)))
                start = above + reader.line_num + 1
        except UnicodeDecodeError:
            raise not_utf8(label, start) from None
        except csv.Error as error:
            raise StageError(f"{label}:{start}: not CSV: {error}") from None


@contextmanager
def _table(opening: Opening, above: int = 0, errors: str = "strict") -> Iterator[TextIO]:
    """Open a table below so many lines."""
    with opening() as binary, io.TextIOWrapper(binary, "utf-8-sig", errors, newline="") as file:
        for _ in range(above):
            file.readline()
        yield file


def _separator(opening: Opening) -> str:
    """Detect the separator: the one that splits the header most, and the first row as often.

    A comma goes first among equals. In much of Europe, where the comma is the decimal mark,
    spreadsheets save with semicolons.
    """
    widths = {separator: _widths(opening, separator) for separator in SEPARATORS}
    even = [
        separator for separator, (header, row) in widths.items() if 1 < header == (row or header)
    ]
    return max(even or SEPARATORS, key=lambda separator: widths[separator][0])


def _widths(opening: Opening, separator: str) -> tuple[int, int | None]:
    """Count the columns of the header and of the first row, as far as they can be read."""
    with _table(opening, errors="replace") as file:
        rows = csv.reader(file, delimiter=separator, strict=True)
        header: list[str] = []
        try:
            header = next(rows, [])
            first = next(filter(None, rows), None)
        except csv.Error:  # reading reports it
            first = None
    return len(header), None if first is None else len(first)


def _check_columns(columns: list[str], place: str) -> None:
    empty = "" in columns
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if columns and (empty or repeated):
        problem = f"column {repeated[0]!r} twice" if repeated else "a column without a name"
        raise StageError(
            f"{place}: the first line of a CSV file names its columns; it has {problem}"
        )


def _uneven(
    columns: list[str], values: list[str], separator: str, label: str, line: int
) -> RowError:
    return RowError(
        f"{label}:{line}: {len(values)} values for {len(columns)} columns",
        hint=f"a value that has {SEPARATORS.get(separator, repr(separator))} or a line break "
        "in it must stand in double quotes",
        reason="another number of values",
    )
