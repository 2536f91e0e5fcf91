"""Tables: merged cells spread over all that they cover, and rows as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

WIDEST = 1000
"""Columns that a cell may span, as in browsers."""

MOST_CELLS = 100_000
"""Cells of a table after repetition; in one that would have more, none is repeated."""

MOST_TIMES = 20
"""Cells of a table after repetition for each that it has before, besides 50: a span that is only
meant to be wide enough covers columns that are not there."""


class Cell(NamedTuple, Generic[T]):
    """What stands in a cell, and how many columns and rows it covers."""

    content: T
    across: int = 1
    down: int = 1


def spread(rows: Sequence[Sequence[Cell[T]]]) -> list[list[T | None]]:
    """Return for each row what every column holds, a merged cell in all that it covers.

    No cell reaches beyond the last row. Where none reaches, there is None.
    """
    if _size(rows) > min(MOST_CELLS, 50 + MOST_TIMES * sum(map(len, rows))):
        return [[cell.content for cell in row] for row in rows]
    lines: list[list[T | None]] = []
    above: dict[int, tuple[T, int]] = {}  # by column: what reaches down, and how far
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
    """Add what comes next from above in a row, or all of it within a width."""
    while len(line) in above or len(line) < width:
        line.append(above[len(line)][0] if len(line) in above else None)


def joined_names(rows: Iterable[Sequence[str | None]]) -> list[str]:
    """Return what a table's columns are called that has several rows of names, outermost first."""
    columns = zip_longest(*rows)
    return [" / ".join(dict.fromkeys(filter(None, column))) for column in columns]


def table(rows: Iterable[Sequence[str | None]]) -> str:
    """Return rows as a table in Markdown, the first one of which is its header."""
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
