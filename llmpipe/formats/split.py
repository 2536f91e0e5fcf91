"""Choose which rows to hold out: seeded, by content and not by order, units kept together.

Rows of one unit (a group, or one question) go into one part or none. Two parts never share a
question either, though their units differ. A part may therefore get fewer rows than asked for;
`Part` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

Share = int | float
"""How much to hold out: a count of rows (int) or a fraction of those that may be (float)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that may be held out.

    Attributes:
        unit: rows with an equal one stay together.
        question: no two parts hold an equal one.
    """

    unit: bytes
    question: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """What one held-out part takes.

    Attributes:
        positions: the rows taken, in order.
        wanted: how many rows were asked for.
        too_large: the positions of the smallest unit that did not fit any more; empty if none.
    """

    positions: tuple[int, ...]
    wanted: int
    too_large: tuple[int, ...] = ()

    def renumbered(self, positions: Sequence[int]) -> Part:
        """Return the part with each position replaced by the element at it."""
        taken, large = (tuple(positions[i] for i in p) for p in (self.positions, self.too_large))
        return Part(taken, self.wanted, large)


def choose_held_out(
    rows: Sequence[Candidate], shares: Mapping[str, Share], seed: int
) -> dict[str, Part]:
    """Return what each held-out part takes.

    The units are put in an order that depends on ``seed`` and the unit alone, so that a row added
    to the data moves few others; each part takes, from where the last one stopped, units that
    still fit into its share.
    """
    members: dict[bytes, list[int]] = {}
    for position, row in enumerate(rows):
        members.setdefault(row.unit, []).append(position)
    waiting = sorted(members, key=_drawing(seed))
    units = {unit: tuple(members[unit]) for unit in waiting}
    parts: dict[str, Part] = {}
    for name, share in shares.items():
        parts[name] = _take(units, rows, row_count(share, len(rows)))
        units = _without(units, rows, parts[name].positions)
    return parts


def first_drawn(
    units: Iterable[tuple[int, bytes]], share: float, seed: int
) -> list[tuple[int, bytes]]:
    """Return, of numbered units, those that come first in the order of the draw.

    Args:
        units: the units.
        share: about how many of them to return.
        seed: determines the order.
    """
    start, last = _start(seed), int(share * 2**64)
    if last >= 2**64:
        return list(units)
    bound = last.to_bytes(8, "big")
    return [numbered for numbered in units if sha256(start + numbered[1]).digest() < bound]


def _drawing(seed: int) -> Callable[[bytes], bytes]:
    """Return what puts units in the order of a draw."""
    start = _start(seed)
    return lambda unit: sha256(start + unit).digest()


def _start(seed: int) -> bytes:
    return b"%d:" % seed


def row_count(share: Share, rows: int) -> int:
    """Return how many rows a share of so many is."""
    return share if isinstance(share, int) else max(1, round(share * rows))


def _take(units: Mapping[bytes, tuple[int, ...]], rows: Sequence[Candidate], wanted: int) -> Part:
    taken: list[int] = []
    left: list[tuple[int, ...]] = []
    for positions in units.values():
        if len(taken) + len(positions) <= wanted:
            taken += positions
        else:
            left.append(positions)
    if len(taken) == wanted or not left:
        return Part(tuple(sorted(taken)), wanted)
    smallest = min(left, key=lambda positions: (len(positions), rows[positions[0]].unit))
    return Part(tuple(sorted(taken)), wanted, smallest)


def _without(
    units: Mapping[bytes, tuple[int, ...]], rows: Sequence[Candidate], taken: Iterable[int]
) -> dict[bytes, tuple[int, ...]]:
    """Return the units that share neither a row nor a question with those taken."""
    asked = {rows[i].question for i in taken}
    return {
        unit: positions
        for unit, positions in units.items()
        if not any(rows[i].question in asked for i in positions)
    }
