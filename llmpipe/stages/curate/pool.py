"""The rows that are left, and the file of those that a step dropped."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from llmpipe.formats.bad_line import BadLine
from llmpipe.formats.records import Row, encode
from llmpipe.stages.curate.rows import Rows, Said

T = TypeVar("T")

EVERY = 10_000
"""Rows between two reports of progress."""

NO_STEP = "leave this step out"
"""How to keep a row where no value of the step's fields does."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Why a row is dropped.

    Attributes:
        rule: the rule, by which dropped rows are counted.
        reason: what it found, in words.
        keep: how to keep such a row.
        score: how much of it, if the rule measures.
        beside: the row that it was compared with.
    """

    rule: str
    reason: str
    keep: str
    score: float | None = None
    beside: Mapping[str, Any] | None = None


def raised(field: str, score: float) -> str:
    """Return how to keep a row that has a score, by a field, such as ``most to``, below 1."""
    least = math.ceil(round(score * 10_000, 6)) / 10_000
    return f"raise {field} {least:.4f}" if least < 1 else NO_STEP


def lowered(field: str, score: float) -> str:
    """Return how to keep a row that has a score, by a field, such as ``least to``, above 0."""
    most = math.floor(round(score * 10_000, 6)) / 10_000
    return f"lower {field} {most:.4f}" if most > 0 else NO_STEP


@dataclass(slots=True)
class Pool:
    """The rows that are left, for one step after the other.

    Attributes:
        rows: all rows that were read.
        places: what rejects call each source.
        rejects: the file of dropped rows.
        work: a folder for large intermediate results.
        tell: reports progress: rows done, of how many, and what is done.
        kept: the positions of the rows that are left.
        counts: how many rows each rule dropped.
        step: the number of the step that runs, from 0.
    """

    rows: Rows
    places: Sequence[str]
    rejects: BinaryIO
    work: Path
    tell: Callable[[int, int, str], object] = lambda done, total, note: None
    kept: Sequence[int] = ()
    counts: Counter[str] = field(default_factory=Counter)
    step: int = 0

    def each_said(self, note: str) -> Iterator[tuple[int, list[Said]]]:
        """Yield what the rows that are left say, with their positions."""
        return self._told(self.rows.each_said(self.kept), note)

    def each_row(self, note: str) -> Iterator[tuple[int, Row]]:
        """Yield the rows that are left, with their positions."""
        return self._told(self.rows.each(self.kept), note)

    def _told(self, rows: Iterable[T], note: str) -> Iterator[T]:
        for done, found in enumerate(rows):
            if done % EVERY == 0:
                self.tell(done, len(self.kept), note)
            yield found

    def drop(self, dropped: Mapping[int, Drop]) -> None:
        """Drop rows, each for a reason, and write them among the rejects."""
        if not dropped:
            return
        for position, row in self.rows.each(sorted(dropped)):
            self._write(dropped[position], self.place(position), row)
        self.kept = array("Q", (position for position in self.kept if position not in dropped))

    def drop_line(self, source: int, bad: BadLine) -> None:
        """Write a line that is not a row among the rejects."""
        drop = Drop("unreadable", bad.error.message, "mend the line")
        self._write(drop, {"source": self.places[source], "line": bad.line}, bad.text)

    def place(self, position: int) -> dict[str, Any]:
        """Return where a row stands in its source."""
        source, line = self.rows.source[position], self.rows.line[position]
        return {"source": self.places[source], "line": line}

    def _write(self, drop: Drop, place: Mapping[str, Any], row: Any) -> None:
        told: dict[str, Any] = {**place, "step": self.step, "rule": drop.rule}
        told["reason"] = drop.reason
        if drop.score is not None:
            told["score"] = round(drop.score, 4)
        if drop.beside is not None:
            told["compared_with"] = drop.beside
        told["keep"] = drop.keep
        self.rejects.write(encode({**told, "row": row}) + b"\n")
        self.counts[drop.rule] += 1
