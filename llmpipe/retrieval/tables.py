"""Find the tables of a text, so that a part of one can be shown with its column names.

Tables are in Markdown, as in all converted documents: a row of names, a row of dashes, then rows
with bars until a line without one. A bar after a backslash is part of its cell.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import attrgetter

_BEFORE_A_ROW = "> \t"
"""Characters that may precede a row: a table may be inside a quote."""
_RULE = frozenset("|-:" + _BEFORE_A_ROW)
_BAR = re.compile(r"\\[^\w\s]|(\|)")

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Table:
    """A table in a text.

    Attributes:
        names: the column names.
        rows: the position of the first letter of each row, including the names and the dashes.
        bars: the positions of the bars between cells.
    """

    start: int
    end: int
    names: tuple[str, ...]
    rows: Sequence[int]
    bars: Sequence[int]

    def row(self, at: int) -> Span:
        """Return where the row at a position begins, and where the next one does."""
        following = bisect_right(self.rows, at)
        end = self.rows[following] if following < len(self.rows) else self.end
        return self.rows[following - 1], end

    def rows_between(self, start: int, end: int) -> Iterator[Span]:
        """Yield the rows between two positions; the first and last may be partial."""
        inside = self.rows[bisect_right(self.rows, start) : bisect_left(self.rows, end)]
        return pairwise((start, *inside, end))

    def cells_between(self, start: int, end: int) -> Iterator[Span]:
        """Yield the cells of a part of a row, each from the bar before it."""
        inside = self.bars[bisect_right(self.bars, start) : bisect_left(self.bars, end - 1)]
        return pairwise((start, *inside, end))

    def header(self, start: int, end: int) -> str:
        """Return the names of the columns that a part of the table covers, on one line.

        These are all columns, unless the part lies within one row. The names themselves have no
        header.
        """
        row, following = self.row(start)
        if row == self.rows[0]:
            return ""
        names, end = self.names, min(end, self.end)
        if end <= following:
            names = names[self._column(row, start + 1) : self._column(row, end - 1) + 1]
        if not any(map(str.isalnum, "".join(names))):
            return ""
        return " ".join(["|", *(f"{name} |".strip() for name in names)])

    def _column(self, row: int, at: int) -> int:
        """Return the number of bars in a row before a position, without a leading one."""
        first = bisect_left(self.bars, row)
        leading = first < len(self.bars) and self.bars[first] == row
        return max(0, bisect_left(self.bars, at) - first - leading)


def find_tables(text: str) -> list[Table]:
    """Return the tables of a text that have column names, in order."""
    if "|" not in text:
        return []
    lines = text.split("\n")
    starts = list(accumulate((len(line) + 1 for line in lines), initial=0))
    found, number = [], 1
    while number < len(lines):
        names = lines[number - 1]
        if "|" in names and _is_rule(lines[number]):
            first = last = number
            while last + 1 < len(lines) and "|" in lines[last + 1]:
                last += 1
            if any(map(str.isalnum, names)):
                found.append(_table(lines[first - 1 : last + 1], starts[first - 1]))
            number = last
        number += 1
    return found


def table_at(tables: Sequence[Table], at: int) -> Table | None:
    """Return the table that contains a position after its start."""
    before = bisect_left(tables, at, key=attrgetter("start"))
    return tables[before - 1] if before and at < tables[before - 1].end else None


def tables_between(tables: Sequence[Table], start: int, end: int) -> Sequence[Table]:
    """Return the tables that overlap a range."""
    first = bisect_right(tables, start, key=attrgetter("end"))
    return tables[first : bisect_left(tables, end, key=attrgetter("start"))]


def names_above(tables: Sequence[Table], at: int) -> str:
    """Return the column names of the table that contains a position after its start, or ''."""
    table = table_at(tables, at)
    return table.header(at, table.end) if table else ""


def _table(lines: Sequence[str], start: int) -> Table:
    rows, bars = array("q"), array("q")
    at = start
    for line in lines:
        rows.append(at + len(line) - len(line.lstrip(_BEFORE_A_ROW)))
        bars.extend(at + bar for bar in _bars(line))
        at += len(line) + 1
    return Table(start, at - 1, cells_of(lines[0].strip(_BEFORE_A_ROW)), rows, bars)


def cells_of(row: str) -> tuple[str, ...]:
    """Return the texts of the cells of a row, with whitespace collapsed."""
    cells = [row[begin + 1 : end] for begin, end in pairwise((-1, *_bars(row), len(row)))]
    inner = cells[not cells[0] : len(cells) - (not cells[-1])]
    return tuple(" ".join(cell.split()) for cell in inner)


def _bars(line: str) -> Iterator[int]:
    return (match.start() for match in _BAR.finditer(line) if match[1])


def _is_rule(line: str) -> bool:
    return "|" in line and "-" in line and _RULE.issuperset(line.strip())
