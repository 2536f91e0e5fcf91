"""Choose which rows to hold out: seeded, by content and not by order, groups kept together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from llmpipe.errors import StageError

Share = int | float
"""How much to hold out: a count of rows (int) or a fraction of those that may be (float)."""


def choose_held_out(
    units: Sequence[bytes], shares: Mapping[str, Share], seed: int
) -> dict[str, list[int]]:
    """Give the positions of the rows that each held-out part takes, in order.

    ``units`` says for every row that may be held out which unit it belongs to; the rows of a unit
    stay together. The units are put in an order that depends on ``seed`` and the unit alone, so
    that a row added to the data moves few others; each part takes, from where the last one
    stopped, units that still fit into its share.

    Raises:
        StageError: there are fewer rows than asked for, or the groups are larger than a share.
    """
    rows_of: dict[bytes, list[int]] = {}
    for position, unit in enumerate(units):
        rows_of.setdefault(unit, []).append(position)
    waiting = sorted(rows_of, key=lambda unit: hashlib.sha256(b"%d:%b" % (seed, unit)).digest())
    parts: dict[str, list[int]] = {}
    for part, share in shares.items():
        wanted = _row_count(share, len(units))
        taken, waiting = _take(waiting, rows_of, wanted)
        parts[part] = sorted(position for unit in taken for position in rows_of[unit])
        _check(part, wanted, len(parts[part]), len(units))
    return parts


def _row_count(share: Share, rows: int) -> int:
    return share if isinstance(share, int) else max(1, round(share * rows))


def _take(
    waiting: Iterable[bytes], rows_of: Mapping[bytes, Sequence[int]], wanted: int
) -> tuple[list[bytes], list[bytes]]:
    taken: list[bytes] = []
    left: list[bytes] = []
    for unit in waiting:
        size = len(rows_of[unit])
        (taken if size <= wanted else left).append(unit)
        wanted -= size if size <= wanted else 0
    return taken, left


def _check(part: str, wanted: int, got: int, rows: int) -> None:
    if wanted > rows:
        raise StageError(
            f"split.{part} asks for {wanted} rows, but only {rows} can be held out",
            hint="generated rows are never held out; lower the count or give a fraction",
        )
    if not got:
        raise StageError(
            f"split.{part} stays empty: every group left has more than {wanted} rows",
            hint="raise the share, lower the others, or use a finer `group` column",
        )
