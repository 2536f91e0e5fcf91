"""Read the sources of a format stage: each row as an example, with what later decisions need.

A row that cannot be read is turned away with its reason, as far as `max_rejects` allows. Columns
that are left behind are counted by name.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import msgspec

from llmpipe.contracts import Artifact
from llmpipe.errors import StageError
from llmpipe.formats import (
    Conversation,
    Example,
    FormatName,
    RowError,
    UnusableRowError,
    read_example,
    write_example,
)
from llmpipe.formats.bad_line import BadLine, OnBad
from llmpipe.formats.example import NATURAL, UNCHANGED, require_usable
from llmpipe.formats.leakage import asked_in
from llmpipe.formats.mapping import ColumnMap
from llmpipe.formats.plain import read_plain
from llmpipe.formats.provenance import PROVENANCE, Provenance, read_provenance
from llmpipe.formats.records import Row, WrittenFloat, encode, read_rows
from llmpipe.formats.row import expecting
from llmpipe.formats.turn import require_question
from llmpipe.stages.format_rows import Rejects, Rows
from llmpipe.stages.format_split import Groups, Split

Format = FormatName | Literal["unchanged"]

EVERY = 10_000
"""Rows between two reports of progress."""


@dataclass(frozen=True, slots=True)
class SourceRows:
    """A source as it is read: its file, the map of its columns, and how many rows to draw.

    ``first`` is how many of its rows there are to read or draw from; None means all.
    """

    artifact: Artifact
    columns: ColumnMap | None
    sample: int | None
    seed: int
    first: int | None = None


@dataclass(slots=True)
class Told:
    """What is to be said of the rows that were read."""

    total: int = 0
    odd: Counter[str] = field(default_factory=Counter)
    """Rows that could not be read, by reason."""
    first: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """The first of each reason: where and what, and a hint."""
    left: Counter[tuple[str, ...]] = field(default_factory=Counter)
    first_left: dict[tuple[str, ...], str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def left_behind(self) -> dict[str, int]:
        """Return the columns and keys that were left behind, each with its number of rows."""
        names: Counter[str] = Counter()
        for several, count in self.left.items():
            for name in dict.fromkeys(several):
                names[name] += count
        return dict(sorted(names.items()))

    def check(self, max_rejects: float) -> None:
        """Refuse sources with too many unreadable rows.

        Raises:
            StageError: the share is above ``max_rejects``.
        """
        count = self.odd.total()
        if count <= max_rejects * self.total:
            return
        firsts = [
            f"{told} ({_rows(self.odd[reason])}: {reason})"
            for reason, (told, _) in self.first.items()
        ]
        hints = [hint for _, hint in self.first.values() if hint]
        allowed = f"{max_rejects:.3g} of the rows" if max_rejects else "none"
        raise StageError(
            f"{count} of {_rows(self.total)} cannot be read, and max_rejects allows {allowed}:\n"
            + "\n".join(firsts),
            hint="\n".join(dict.fromkeys([*hints, "or raise max_rejects"])),
        )

    def refuse_left(self) -> None:
        """Refuse sources with columns that are left behind.

        Raises:
            StageError: there are some.
        """
        names = self.left_behind()
        if names:
            place = next(iter(self.first_left.values()))
            raise StageError(
                f"columns or keys that no example holds: {listed(names)} (first: {place})",
                hint="name them under `map`, take them out, or set unknown_columns: count",
            )


class Reader:
    """Reads all sources of a stage into `Rows`."""

    def __init__(self, folder: Path, to: Format, split: Split | None) -> None:
        self.rows = Rows(folder, grouped=split is not None and split.group is not None)
        self.rejects = Rejects()
        self.told = Told()
        self._to = to
        self._groups = Groups(split)
        self._with_system = bool(split and split.with_system)
        self._group_column = {split.group} if split and split.group else set()

    def read(self, number: int, source: SourceRows) -> Iterator[int]:
        """Read one source; yield how many rows are kept now and then.

        Raises:
            StageError: the file cannot be read, or no row has the column named for `system`.
        """
        label, told = source.artifact.label, self.told
        groups = self._groups if self._group_column else None
        system = source.columns.system if source.columns else None
        may_be_plain = self._to == "messages" and source.columns is None and not self._with_system
        rows = self._drawn(number, source)
        for line, row in rows if system is None else expecting(rows, system, label):
            told.total += 1
            if told.total % EVERY == 0:
                yield len(self.rows)
            plain = read_plain(row) if may_be_plain else None
            if plain is not None:
                group = groups.of(row, label, line, generated=False) if groups else None
                if plain.left:
                    self._count_left(plain.left, label, line)
                self.rows.add(plain.row, plain.asked, (number, line), group)
                continue
            try:
                self._keep(number, line, row, source)
            except UnusableRowError as error:
                self.rejects.add(number, line, error.reason)
            except RowError as error:
                self._turn_away(number, f"{label}:{line}: {error.message}", line, error)

    def finish(self) -> Told:
        """Return what is to be said, after the last source."""
        self.rows.store()
        self._groups.check()
        self.told.warnings += self._groups.warnings()
        return self.told

    def _keep(self, number: int, line: int, row: Row, source: SourceRows) -> None:
        if self._to == UNCHANGED:
            self._keep_unread(number, line, row, source.artifact.label)
            return
        example, left = read_example(row, source.columns)
        require_usable(example)
        natural = NATURAL[type(example)]
        if self._to != natural:
            left = (*left, *write_example(example, self._to).lost)
        elif isinstance(example, Conversation):
            require_question(example.turns, natural)
        provenance = read_provenance(row)
        label = source.artifact.label
        group = self._groups.of(row, label, line, generated=provenance.generated)
        if left:
            self._count_left(tuple(left), label, line)
        asked = asked_in(example, with_system=self._with_system)
        self.rows.add(_encoded(example, provenance), asked, (number, line), group, provenance)

    def _keep_unread(self, number: int, line: int, row: Row, label: str) -> None:
        provenance = read_provenance(row)
        group = self._groups.of(row, label, line, generated=provenance.generated)
        columns = {name: value for name, value in row.items() if name != PROVENANCE}
        text = msgspec.Raw(encode({**columns, PROVENANCE: provenance.column()}))
        asked = _asked_unread(columns, with_system=self._with_system)
        self.rows.add(text, asked, (number, line), group, provenance)

    def _count_left(self, left: tuple[str, ...], label: str, line: int) -> None:
        if self._group_column:
            left = tuple(name for name in left if name not in self._group_column)
        if left:
            count = self.told.left.get(left, 0)
            if not count:
                self.told.first_left[left] = f"{label}:{line}"
            self.told.left[left] = count + 1

    def _turn_away(self, number: int, told: str, line: int, error: RowError) -> None:
        self.rejects.add(number, line, error.reason)
        self.told.odd[error.reason] += 1
        self.told.first.setdefault(error.reason, (told, error.hint))

    def _drawn(self, number: int, source: SourceRows) -> Iterator[tuple[int, Row]]:
        """Return the rows of a source, or those that `sample` draws."""

        def note(bad: BadLine) -> None:
            self.told.total += 1
            self._turn_away(number, bad.error.message, bad.line, bad.error)

        if source.sample is None:
            return rows_of(source, note)
        lines = _sampled(source, note)
        if len(lines) < source.sample:
            self.told.warnings.append(
                f"{source.artifact.label}: sample asks for {source.sample} rows; it has "
                f"{len(lines)}"
            )
        every = rows_of(source, lambda bad: None)
        return ((line, row) for line, row in every if line in lines)


def rows_of(source: SourceRows, bad: OnBad) -> Iterator[tuple[int, Row]]:
    """Yield the rows; an answer ``1.10`` stays one, as it does where training reads it."""
    artifact = source.artifact
    rows = read_rows(artifact.path, artifact.label, floats=WrittenFloat, bad=bad)
    return islice(rows, source.first)


def _asked_unread(columns: Row, *, with_system: bool) -> Sequence[str]:
    """Return what a row asks if its columns show it, and otherwise all of it."""
    try:
        return asked_in(read_example(columns).example, with_system=with_system)
    except RowError:
        return [encode(columns).decode()]


def _encoded(example: Example, provenance: Provenance) -> msgspec.Raw:
    """Return an example as a row of its natural format, in JSON."""
    row: dict[str, Any]
    if (
        isinstance(example, Conversation)
        and not example.tools
        and all(turn.is_plain for turn in example.turns)
    ):
        row = {"messages": example.turns}
    else:
        row = example.write()
    row[PROVENANCE] = provenance.column()
    return msgspec.Raw(encode(row))


def listed(names: dict[str, int]) -> str:
    """Return names with their counts, as messages list them."""
    return ", ".join(f"{name} ({_rows(count)})" for name, count in names.items())


def _sampled(source: SourceRows, note: OnBad) -> set[int]:
    """Draw rows by a hash of seed and content, so that their order does not matter."""

    def drawn() -> Iterator[tuple[bytes, int]]:
        for line, row in rows_of(source, note):
            text = b"%d:%b" % (source.seed, encode(row))
            yield blake2b(text, digest_size=16).digest(), line

    return {line for _, line in heapq.nsmallest(source.sample or 0, drawn())}


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
