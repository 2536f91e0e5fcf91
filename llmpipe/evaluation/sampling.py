"""Draw rows that stay the same rows: by a hash of seed and content, not by their order."""

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
    """Draw ``count`` rows and leave them in their order; all where there are no more, or for None.

    ``content`` gives what of a row is hashed, as data that JSON can hold. A row that is added or
    removed changes the draw by one row at most.
    """
    if count is None or count >= len(rows):
        return list(rows)

    def draw(i: int) -> tuple[bytes, int]:
        return blake2b(b"%d:%b" % (seed, msgspec.json.encode(content(rows[i])))).digest(), i

    return [rows[i] for i in sorted(sorted(range(len(rows)), key=draw)[:count])]
