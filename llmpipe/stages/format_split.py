"""Hold rows out of a training set: whose rows stay together, which parts they go to, what is said.

A row belongs to its group; a row without one to its question. A null or blank value is not a group,
nor is a missing column. `llmpipe.formats.split` makes the choice.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from llmpipe.contracts import RandomSeed
from llmpipe.errors import StageError
from llmpipe.formats.records import Row
from llmpipe.formats.row import RowError, missing_column
from llmpipe.formats.split import Candidate, Part, choose_held_out, orders_of, row_count
from llmpipe.stages.format_rows import Rows

Share = Annotated[int, msgspec.Meta(ge=0)] | Annotated[float, msgspec.Meta(ge=0, lt=1)]

LOOKED_AT = 100
"""Rows that are read again to advise about them."""


class Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to hold out. A whole number counts rows; a fraction is of the rows not generated."""

    eval: Share = 0
    """Rows for watching the training."""
    test: Share = 0
    """Rows for the final evaluation."""
    random_seed: RandomSeed = 0
    """Determines which rows are held out."""
    group: str | None = None
    """A column whose equal values stay together: all held out in one part, or none. A row where it
    is null, blank or missing is in no group, and stays with the rows that ask the same."""
    with_system: bool = False
    """Count the system message as a part of the question: for rows that ask the same about a
    passage in it. Without it, rows that differ in the system message alone stay together."""
    one_per_question: bool = False
    """Hold out one row of each question; its other answers then go nowhere, and are rejected. Both
    counts and fractions are then of questions."""


def shares_of(split: Split | None) -> dict[str, int | float]:
    """Return the held-out parts that are asked for, each with its share."""
    shares = {"eval": split.eval, "test": split.test} if split else {}
    return {part: share for part, share in shares.items() if share}


class Groups:
    """Read the group of each row, and count by source the rows that have none."""

    def __init__(self, split: Split | None) -> None:
        self._column = split.group if split and shares_of(split) else None
        self._present = False
        self._lacking: tuple[str, int, Row] | None = None
        self._without: Counter[str] = Counter()

    def of(self, row: Row, label: str, line: int, *, generated: bool) -> bytes | None:
        """Return what the rows of one group share, or None for a row that is in no group."""
        if self._column is None:
            return None
        value = row.get(self._column)
        self._present |= self._column in row
        if _is_absent(value):
            if not generated:
                self._without[label] += 1
                if self._column not in row and self._lacking is None:
                    self._lacking = label, line, row
            return None
        # The hook is for fractions inside a list or an object: they, too, go by their value.
        return msgspec.json.encode(_plain(value), enc_hook=float, order="deterministic")

    def check(self) -> None:
        """Require the column in one row at least: where all lack it, its name is misspelled.

        Raises:
            StageError: no row has it.
        """
        if self._column is not None and self._lacking is not None and not self._present:
            label, line, row = self._lacking
            error = missing_column(row, self._column)
            raise StageError(f"{label}:{line}: {error.message}", hint=error.hint)

    def warnings(self) -> Iterable[str]:
        """Yield, for each source, how many rows have no group."""
        for label, count in self._without.items():
            yield (
                f"{label}: {count} rows have no {self._column!r} and are in no group: each stays "
                "with the rows that ask the same"
            )


def _is_absent(value: Any) -> bool:
    """Return whether a value says nothing: null, NaN, blank, or a list or object of such values."""
    if isinstance(value, (list, Mapping)):
        return all(map(_is_absent, value.values() if isinstance(value, Mapping) else value))
    if isinstance(value, str):
        return not value.strip()
    return value is None or value != value  # NaN, which Parquet has for null


def _plain(value: Any) -> Any:
    """Return the value as groups are compared: 3, 3.0 and "3" are one, as a CSV has only text."""
    if isinstance(value, float):
        value = int(value) if value.is_integer() else float(value)  # 1.10 is 1.1
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return value.strip() if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Parts:
    """The positions of each part, ``train`` first, and how many rows a held-out part lacks."""

    rows: dict[str, Sequence[int]]
    short: dict[str, int]
    warnings: tuple[str, ...] = ()


def split_rows(
    split: Split | None, rows: Rows, positions: Sequence[int], describe: Callable[[int], str]
) -> Parts:
    """Hold rows out. The rows of one group, or with one question, count as one.

    Args:
        split: what to hold out; None for nothing.
        rows: all rows.
        positions: the rows to part. Generated ones are never held out.
        describe: quotes a row's question and says where the row stands, for messages.

    Raises:
        StageError: a part asks for more rows than may be held out, or gets none since whatever
            must stay together is larger than the part.
    """
    shares = shares_of(split)
    if split is None or not shares:
        return Parts({"train": positions}, {})
    eligible = array("Q", (i for i in positions if not rows.generated[i]))
    generated = len(positions) - len(eligible)
    if split.one_per_question:
        eligible = array("Q", _one_per_question(rows, eligible))
    chosen = _choose(split, rows, eligible)
    told = _Told(split, rows, eligible, chosen, describe)
    for name in chosen:
        told.check(name, generated=generated)
    held = {name: array("Q", sorted(part.positions)) for name, part in chosen.items()}
    taken = {i for part in held.values() for i in part}
    short = {name: part.wanted - len(part.positions) for name, part in chosen.items()}
    return Parts(
        {"train": array("Q", (i for i in positions if i not in taken)), **held},
        {name: count for name, count in short.items() if count},
        tuple(told.shortfall(name) for name, count in short.items() if count)
        or tuple(told.never_held()),
    )


def _choose(split: Split, rows: Rows, positions: Sequence[int]) -> dict[str, Part]:
    """Choose by the first units in the order of the draw, and by more where those do not do.

    A part that is full needs no further unit, so most rows are never looked at.
    """
    counts = {name: row_count(share, len(positions)) for name, share in shares_of(split).items()}
    order = array("Q", orders_of(rows.units(positions), split.random_seed))
    share = 2 * (sum(counts.values()) + 50) / max(1, len(positions))
    while True:
        cut = int(share * 2**64)
        near = [i for i, place in zip(positions, order, strict=True) if place < cut]
        candidates = [
            Candidate(unit, rows.question(i))
            for i, unit in zip(near, rows.units(near), strict=True)
        ]
        chosen = choose_held_out(candidates, counts, split.random_seed)
        full = all(len(part.positions) == part.wanted for part in chosen.values())
        if full or share >= 1:
            return {name: part.renumbered(near) for name, part in chosen.items()}
        share *= 4


def _larger_than(most: int, rows: Rows, positions: Sequence[int]) -> list[list[int]]:
    """Return the positions of each unit with more rows than ``most``."""
    seen: set[bytes] = set()
    repeated: set[bytes] = set()
    for unit in rows.units(positions):
        (repeated if unit in seen else seen).add(unit)
    del seen  # of most data sets, all but these few are alone
    members: dict[bytes, list[int]] = {unit: [] for unit in repeated}
    for position, unit in zip(positions, rows.units(positions), strict=True):
        if unit in members:
            members[unit].append(position)
    return [unit for unit in members.values() if len(unit) > most]


def _one_per_question(rows: Rows, positions: Iterable[int]) -> list[int]:
    """Return one row of each question, whatever their order: the one whose id comes first."""
    first: dict[bytes, int] = {}
    for position in positions:
        question = rows.question(position)
        holder = first.setdefault(question, position)
        if rows.id(position) < rows.id(holder):
            first[question] = position
    return list(first.values())


@dataclass(frozen=True, slots=True)
class _Told:
    """What is said of parts that do not get what they ask for."""

    split: Split
    rows: Rows
    eligible: Sequence[int]
    chosen: Mapping[str, Part]
    describe: Callable[[int], str]

    def check(self, name: str, *, generated: int) -> None:
        part, what = self.chosen[name], self._counted()
        if part.wanted > len(self.eligible):
            without = f"; {generated} generated rows are never held out" if generated else ""
            raise StageError(
                f"split.{name} asks for {part.wanted} {what}, but only {len(self.eligible)} can be "
                f"held out{without}",
                hint="lower the count or give a fraction",
            )
        if part.positions:
            return
        if not part.too_large:
            raise StageError(
                f"split.{name} stays empty: the other part holds all that it could take",
                hint="lower the other share",
            )
        raise StageError(
            f"split.{name} stays empty: what stays together does not fit into its {part.wanted} "
            f"{what}; the smallest is {self._of(part.too_large)}",
            hint=self._ways_out(name, part),
        )

    def shortfall(self, name: str) -> str:
        part = self.chosen[name]
        got = f"split.{name} gets {len(part.positions)} of the {part.wanted} {self._counted()}"
        if not part.too_large:
            return f"{got} that it asks for: every question left is held out in the other part"
        return f"{got} that it asks for: the smallest that is left is {self._of(part.too_large)}"

    def never_held(self) -> Iterator[str]:
        """Yield, if some rows stay together in too large a unit, how many can never be held out."""
        most = max(part.wanted for part in self.chosen.values())
        large = _larger_than(most, self.rows, self.eligible)
        if large:
            rows, what = sum(map(len, large)), self._counted()
            yield (
                f"{rows} of {len(self.eligible)} {what} are never held out: those that stay "
                f"together are more than the {most} that a part takes; most are "
                f"{self._of(max(large, key=len))}"
            )

    def _counted(self) -> str:
        return "questions" if self.split.one_per_question else "rows"

    def _of(self, unit: Sequence[int]) -> str:
        first = unit[0]
        group = self.rows.group(first)
        size = f"with {len(unit)} {self._counted()}"
        if group is None:
            return f"the question {self.describe(first)} {size}"
        return f"the group {group.decode()} of {self.split.group!r} {size}"

    def _differ_in_system(self) -> bool:
        """Return whether the first rows that ask have several system messages."""
        try:
            said = [self.rows.example(i).said() for i in self.eligible[:LOOKED_AT]]
        except RowError:  # rows that are passed on unread may be of no known format
            return False
        return len({turn.text for turns in said for turn in turns if turn.role == "system"}) > 1

    def _ways_out(self, name: str, part: Part) -> str:
        """Name the remedies that these rows allow."""
        needed, grouped = len(part.too_large), self.rows.group(part.too_large[0]) is not None
        elsewhere = sum(len(other.positions) for other in self.chosen.values())
        ways = []
        if needed + elsewhere < len(self.eligible):
            ways.append(f"raise split.{name} to {needed}")
        if not self.split.one_per_question:
            questions = _one_per_question(self.rows, self.eligible)
            thinned = _choose(self.split, self.rows, questions)[name]
            if thinned.positions and thinned.wanted < len(questions):
                ways.append("hold out one row of each question: split.one_per_question: true")
        if not self.split.with_system and self._differ_in_system():
            ways.append("tell questions apart by their system messages: split.with_system: true")
        if grouped:
            ways.append("name a column with smaller groups, or leave `group` out")
        elif not ways:
            ways.append(
                f"all {needed} rows that are left ask one question, so whatever is held out of "
                "them would be trained on, too: hold out rows of another source, or leave `split` "
                "out"
            )
        return "; or ".join(ways)
