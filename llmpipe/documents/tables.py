"""Repeat merged table cells in all columns and rows they span, and write rows as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

WIDEST = 1000
"""Limit of columns that a cell may span, as in browsers."""

MOST_CELLS = 100_000
"""Limit of cells in a table after repetition; in a larger one, no cell is repeated."""

MOST_TIMES = 20
"""Limit of cells after repetition for each original cell, in addition to 50: a span that is only
meant to be wide enough covers columns that do not exist."""


class Cell(NamedTuple, Generic[T]):
    """The content of a cell, and how many columns and rows it spans."""

    content: T
    across: int = 1
    down: int = 1


def spread(rows: Sequence[Sequence[Cell[T]]]) -> list[list[T | None]]:
    """Return for each row the content of every column, with merged cells repeated.

    No cell extends beyond the last row. A position without a cell is None.
    """
    if _size(rows) > min(MOST_CELLS, 50 + MOST_TIMES * sum(map(len, rows))):
        return [[cell.content for cell in row] for row in rows]
    lines: list[list[T | None]] = []
    above: dict[int, tuple[T, int]] = {}  # by column: content that extends down, and how far
    for row in rows:
        line: list[T | None] = []
        for cell in row:
            _take_from_above(line, above)
            for _ in range(min(cell.across, WIDEST)):
                if cell.down > 1:
                    above[len(line)] = (cell.content, cell.down)
                line.append(cell.content)
        _take_from_above(line, above, max(above, default=-1) + 1)
        lines.append(line)
        above = {at: (content, down - 1) for at, (content, down) in above.items() if down > 1}
    return lines


def _size(rows: Sequence[Sequence[Cell[T]]]) -> int:
    return sum(
        min(cell.across, WIDEST) * min(cell.down, len(rows) - number)
        for number, row in enumerate(rows)
        for cell in row
    )


def _take_from_above(
    line: list[T | None], above: Mapping[int, tuple[T, int]], width: int = 0
) -> None:
    """Add the next content from above to a row, or all of it up to a width."""
    while len(line) in above or len(line) < width:
        line.append(above[len(line)][0] if len(line) in above else None)


def joined_names(rows: Iterable[Sequence[str | None]]) -> list[str]:
    """Return the column names of a table with several header rows, outermost first."""
    columns = zip_longest(*rows)
    return [" / ".join(dict.fromkeys(filter(None, column))) for column in columns]


def table(rows: Iterable[Sequence[str | None]]) -> str:
    """Return rows as a Markdown table; the first row is the header."""
    taken = list(rows)
    if not taken:
        return ""
    width = max(map(len, taken))
    lines = [
        f"| {' | '.join(_written(row[at]) if at < len(row) else '' for at in range(width))} |"
        for row in taken
    ]
    lines.insert(1, f"|{' --- |' * width}")
    return "\n".join(lines)


def _written(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", r"\|")
