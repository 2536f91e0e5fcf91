"""Find the tables of a text, so that what is cut out of one can be shown below its column names.

A table is Markdown's, as all documents are written here: a row of names, a row of dashes, then rows
with bars up to a line without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

_RULE = frozenset("|-: \t")


@dataclass(frozen=True, slots=True)
class Table:
    """Where a table lies in a text, and its row of names, on one line without needless blanks."""

    start: int
    end: int
    names: str


def find_tables(text: str) -> list[Table]:
    """Return the tables of a text that have names for their columns."""
    if "|" not in text:
        return []
    lines = text.split("\n")
    starts = list(accumulate((len(line) + 1 for line in lines), initial=0))
    found, number = [], 1
    while number < len(lines):
        names = lines[number - 1]
        if "|" in names and _is_rule(lines[number]):
            last = number
            while last + 1 < len(lines) and "|" in lines[last + 1]:
                last += 1
            if any(map(str.isalnum, names)):
                end = starts[last] + len(lines[last])
                found.append(Table(starts[number - 1], end, " ".join(names.split())))
            number = last
        number += 1
    return found


def names_above(tables: Sequence[Table], at: int) -> str:
    """Return the column names of the table that goes on at some place; empty where none does."""
    return next((table.names for table in tables if table.start < at < table.end), "")


def _is_rule(line: str) -> bool:
    return "|" in line and "-" in line and _RULE.issuperset(line.strip())
