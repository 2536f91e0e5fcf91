"""Hold rows out of a training set: whose rows stay together, which parts they go to, what is said.

A row belongs to its group; a row without one to its question. A null or blank value is not a group,
nor is a missing column. `llmpipe.formats.split` makes the choice.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, count, islice
from operator import and_
from typing import Annotated, Any

import msgspec

from llmpipe.contracts import RandomSeed
from llmpipe.errors import StageError
from llmpipe.formats.records import Row
from llmpipe.formats.row import RowError, missing_column
from llmpipe.formats.split import Candidate, Part, choose_held_out, first_drawn, row_count
from llmpipe.stages.format_keys import Selector, more_often, ranges, repeated
from llmpipe.stages.format_rows import TRAIN, Fates, Rows

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
        for label, rows in self._without.items():
            yield (
                f"{label}: {rows} rows have no {self._column!r} and are in no group: each stays "
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
    """The rows of each held-out part, and how many it lacks."""

    held: Mapping[str, Sequence[int]]
    short: Mapping[str, int]
    warnings: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Return the names of all parts."""
        return (TRAIN, *self.held)


def split_rows(
    split: Split | None, rows: Rows, fates: Fates, describe: Callable[[int], str]
) -> Parts:
    """Hold training rows out. The rows of one group, or with one question, count as one.

    Args:
        split: what to hold out; None for nothing.
        rows: all rows.
        fates: what becomes of each; held-out rows get another fate. Generated ones never do.
        describe: quotes a row's question and says where the row stands, for messages.

    Raises:
        StageError: a part asks for more rows than may be held out, or gets none since whatever
            must stay together is larger than the part.
    """
    shares = shares_of(split)
    if split is None or not shares:
        return Parts({}, {})
    eligible = bytearray(fates.of(TRAIN))
    for position in compress(count(), rows.generated):
        eligible[position] = 0
    generated = fates.count(TRAIN) - eligible.count(1)
    if split.one_per_question:
        eligible = _one_per_question(rows, eligible)
    chosen = _choose(split, rows, eligible)
    told = _Told(split, rows, eligible, chosen, describe)
    for name in chosen:
        told.check(name, generated=generated)
    for name, part in chosen.items():
        fates.give(name, part.positions)
    short = {name: part.wanted - len(part.positions) for name, part in chosen.items()}
    return Parts(
        {name: array("Q", sorted(part.positions)) for name, part in chosen.items()},
        {name: number for name, number in short.items() if number},
        tuple(told.shortfall(name) for name, number in short.items() if number)
        or tuple(told.never_held()),
    )


def _choose(split: Split, rows: Rows, eligible: Selector) -> dict[str, Part]:
    """Choose by the first units in the order of the draw, and by more where those do not do.

    A part that is full needs no further unit, so most rows are never looked at.
    """
    total = eligible.count(1)
    counts = {name: row_count(share, total) for name, share in shares_of(split).items()}
    share = 1.25 * (sum(counts.values()) + 100) / max(1, total)
    while True:
        units = compress(enumerate(rows.drawn_by()), eligible)
        near = first_drawn(units, share, split.random_seed)
        candidates = [Candidate(unit, rows.questions[i]) for i, unit in near]
        chosen = choose_held_out(candidates, counts, split.random_seed)
        full = all(len(part.positions) == part.wanted for part in chosen.values())
        if full or share >= 1:
            return {name: part.renumbered([i for i, _ in near]) for name, part in chosen.items()}
        share *= 4


def _one_per_question(rows: Rows, eligible: Selector) -> bytearray:
    """Return which rows are the one of their question, whatever their order: its id comes first."""
    found, again = bytearray(eligible), repeated(rows.questions)
    both = bytes(map(and_, eligible, again))
    for low, high in ranges(both.count(1)):
        first: dict[bytes, tuple[bytes, int]] = {}
        for position, (question,) in compress(enumerate(rows.questions), both):
            if low <= question < high:
                found[position] = 0
                own = rows.id(position), position
                first[question] = min(first.get(question, own), own)
        for _, position in first.values():
            found[position] = 1
    return found


def _sized(part: Part) -> tuple[int, int]:
    """Return the first row of the smallest unit that a part could not take, and its size."""
    return part.too_large[0], len(part.too_large)


@dataclass(frozen=True, slots=True)
class _Told:
    """What is said of parts that do not get what they ask for."""

    split: Split
    rows: Rows
    eligible: Selector
    chosen: Mapping[str, Part]
    describe: Callable[[int], str]

    def check(self, name: str, *, generated: int) -> None:
        part, what, available = self.chosen[name], self._counted(), self.eligible.count(1)
        if part.wanted > available:
            without = f"; {generated} generated rows are never held out" if generated else ""
            raise StageError(
                f"split.{name} asks for {part.wanted} {what}, but only {available} can be "
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
            f"{what}; the smallest is {self._of(*_sized(part))}",
            hint=self._ways_out(name, part),
        )

    def shortfall(self, name: str) -> str:
        part = self.chosen[name]
        got = f"split.{name} gets {len(part.positions)} of the {part.wanted} {self._counted()}"
        if not part.too_large:
            return f"{got} that it asks for: every question left is held out in the other part"
        return f"{got} that it asks for: the smallest that is left is {self._of(*_sized(part))}"

    def never_held(self) -> Iterator[str]:
        """Yield, if some rows stay together in too large a unit, how many can never be held out."""
        most = max(part.wanted for part in self.chosen.values())
        units, together, largest = self.rows.units, 0, (0, b"")
        for unit, size in more_often(most, units, self.eligible):
            together += size
            largest = max(largest, (size, unit))
        if together:
            size, unit = largest
            first = next(
                i for i, (key,) in compress(enumerate(units), self.eligible) if key == unit
            )
            yield (
                f"{together} of {self.eligible.count(1)} {self._counted()} are never held out: "
                f"those that stay together are more than the {most} that a part takes; most are "
                f"{self._of(first, size)}"
            )

    def _counted(self) -> str:
        return "questions" if self.split.one_per_question else "rows"

    def _of(self, first: int, size: int) -> str:
        group = self.rows.group(first)
        rows = f"with {size} {self._counted()}"
        if group is None:
            return f"the question {self.describe(first)} {rows}"
        return f"the group {group.decode()} of {self.split.group!r} {rows}"

    def _differ_in_system(self) -> bool:
        """Return whether the first rows that ask have several system messages."""
        try:
            looked_at = islice(compress(count(), self.eligible), LOOKED_AT)
            said = [self.rows.example(i).said() for i in looked_at]
        except RowError:  # rows that are passed on unread may be of no known format
            return False
        return len({turn.text for turns in said for turn in turns if turn.role == "system"}) > 1

    def _ways_out(self, name: str, part: Part) -> str:
        """Name the remedies that these rows allow."""
        needed, grouped = len(part.too_large), self.rows.group(part.too_large[0]) is not None
        elsewhere = sum(len(other.positions) for other in self.chosen.values())
        ways = []
        if needed + elsewhere < self.eligible.count(1):
            ways.append(f"raise split.{name} to {needed}")
        if not self.split.one_per_question:
            questions = _one_per_question(self.rows, self.eligible)
            thinned = _choose(self.split, self.rows, questions)[name]
            if thinned.positions and thinned.wanted < questions.count(1):
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
