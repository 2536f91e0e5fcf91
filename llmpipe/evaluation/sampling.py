"""Draw a stable sample of rows: by a hash of seed and content, not by position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, TypeVar

import msgspec

Row = TypeVar("Row")


def drawn(
    rows: Sequence[Row],
    count: int | None,
    seed: int,
    content: Callable[[Row], Any] = lambda row: row,
) -> list[Row]:
    """Return a sample of ``count`` rows in their order, or all rows if there are not more.

    Args:
        rows: the rows.
        count: the size of the sample; None for all rows.
        seed: selects the sample.
        content: returns the JSON-compatible part of a row that is hashed. Adding or removing a row
            then changes the sample by at most one row.
    """
    if count is None or count >= len(rows):
        return list(rows)

    def draw(i: int) -> tuple[bytes, int]:
        return blake2b(b"%d:%b" % (seed, msgspec.json.encode(content(rows[i])))).digest(), i

    return [rows[i] for i in sorted(sorted(range(len(rows)), key=draw)[:count])]
