"""Look at the labels of many rows at once: which answers are trained with their end, which are not.

A row is cut into segments, each up to and with a token that ends an answer. A segment with trained
tokens must have its end trained. Nothing here knows a tokenizer or a data set; arrays come in,
counts and the numbers of rows go out.

Not seen: an answer's text that is trained in part (``training_detail``, ``weight: 0``), as long
as its end is trained; a row in which several rows are packed would count as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]

UNTRAINED = -100
"""The label of a token that is not trained."""
EXAMPLES = 3
"""How many rows are kept to be shown for each finding."""


class Finding(StrEnum):
    """What may be wrong with an answer or a row."""

    MASKED = "the end is there and is not trained"
    MISSING = "the row ends without the end"
    INNER = "another turn follows without an end between"
    EMPTY = "an empty answer whose end is not trained"
    CUT = "cut at sequence_len, as the configuration asks"
    GAP = "text of the template between the answer and its end is not trained"
    ROW = "nothing of the row is trained"
    SKIPPED = "nothing of the answer is trained"
    LEAD = "text of the template between the prompt for generation and the answer is not trained"


@dataclass(frozen=True, slots=True)
class Rules:
    """What to hold rows against; see `endings.Ending` for the first five."""

    ends: tuple[int, ...] | None = None
    """None where it is unknown what ends an answer: then only whole rows are looked at."""
    tail: tuple[int, ...] = ()
    inner: bool = True
    opening: tuple[int, ...] = ()
    asked: tuple[int, ...] = ()
    special: frozenset[int] = frozenset()
    """Tokens whose lack between an answer and its end counts as an end that is not trained."""
    limit: int | None = None
    """A row of so many tokens that has no end was cut there."""
    chunks: bool = False
    """Whether a row of ``limit`` tokens is one part of a longer text, which has no end yet."""


class Example(NamedTuple):
    """A row that a finding was made in. Examples are sorted by number."""

    number: int
    """The row's number in its file, or in the data set where that is not known; from 0."""
    column: str
    row: int
    """The row's place in the data set."""
    end: int
    """The token of the row at which the answer ends."""


class Place(NamedTuple):
    """Where rows that are looked at together are."""

    numbers: Ints
    """The number of each in its file, or in the data set; from 0."""
    first: int = 0
    """The place of the first in the data set."""
    column: str = ""


@dataclass(slots=True)
class Tally:
    """What was seen in the rows of a data set so far."""

    rows: int = 0
    """Rows; a pair of preferred and rejected answer counts as two."""
    tokens: int = 0
    trained: int = 0
    answers: int = 0
    """Answers of which something is trained, and empty ones."""
    counts: dict[Finding, int] = field(default_factory=dict)
    examples: dict[Finding, list[Example]] = field(default_factory=dict)

    def of(self, *findings: Finding) -> int:
        """Return how often one of the findings was made."""
        return sum(self.counts.get(finding, 0) for finding in findings)

    def look(self, ids: Ints, labels: Ints, lengths: Ints, rules: Rules, place: Place) -> None:
        """Look at some rows.

        Args:
            ids: The tokens of all rows, one row after the other.
            labels: Their labels, `UNTRAINED` where a token is not trained.
            lengths: How many tokens each row has.
            rules: What to hold them against.
            place: Where the rows are.
        """
        starts = np.cumsum(lengths) - lengths
        trained = labels != UNTRAINED
        self.rows += len(lengths)
        self.tokens += len(ids)
        self.trained += int(trained.sum())
        bare = np.flatnonzero(_per(np.add, trained, starts, lengths) == 0)
        self._add(Finding.ROW, place, bare, lengths[bare] - 1)
        if rules.ends is None:
            return
        filled = np.flatnonzero(lengths)
        segments = _segments(ids, trained, starts[filled], lengths[filled], rules)
        self.answers += segments.answers
        for finding, at in segments.findings(rules):
            rows = filled[segments.row[at]]
            shown = segments.first if finding is Finding.LEAD else segments.last
            self._add(finding, place, rows, shown[at] - starts[rows])

    def _add(self, finding: Finding, place: Place, rows: Ints, ends: Ints) -> None:
        if not len(rows):
            return
        self.counts[finding] = self.of(finding) + len(rows)
        numbers, first = np.unique(place.numbers[rows], return_index=True)
        fresh = [
            Example(number, place.column, place.first + int(rows[at]), int(ends[at]))
            for number, at in zip(numbers[:EXAMPLES].tolist(), first.tolist(), strict=False)
        ]
        self.examples[finding] = sorted([*self.examples.get(finding, ()), *fresh])[:EXAMPLES]


@dataclass(frozen=True, slots=True)
class _Segments:
    """Rows cut at the tokens that end an answer; one value for each segment, in order."""

    row: Ints
    last: Ints
    """The position of its last token."""
    first: Ints
    """The position of its first trained token that is not its end; or its last token."""
    lead: Ints
    """How many tokens between what opens an answer at generation and ``first`` are not trained."""
    filled: Mask
    """Whether something but its end is trained."""
    ended: Mask
    """Whether it ends with a token that ends an answer."""
    end_trained: Mask
    gap: Ints
    """How many tokens between the last trained one and its end are not trained."""
    marks: Ints
    """How many of these are special."""
    runs: Ints
    """How many stretches of trained tokens it has."""
    opened: Mask
    """Whether an answer is opened in it."""
    empty: Mask
    """Whether it ends right after the opening."""
    full: Mask
    """Whether its row has as many tokens as a row may have."""

    @property
    def answers(self) -> int:
        return int((self.filled | self.empty).sum())

    def findings(self, rules: Rules) -> Iterator[tuple[Finding, Mask]]:
        """Yield each finding with the segments it was made in."""
        done = self.filled & self.ended
        masked = done & (~self.end_trained | (self.marks > 0))
        open_ = self.filled & ~self.ended
        cut = open_ & self.full
        yield Finding.MASKED, masked
        yield Finding.GAP, done & ~masked & (self.gap > 0)
        yield Finding.LEAD, self.filled & (self.lead > 0)
        if not rules.chunks:
            yield Finding.CUT, cut
        yield Finding.MISSING, open_ & ~cut
        if not rules.inner:
            yield Finding.INNER, self.runs > 1
        nothing = self.ended & ~self.filled
        yield Finding.EMPTY, nothing & self.empty & ~self.end_trained
        yield Finding.SKIPPED, nothing & self.opened & ~self.empty


def _segments(
    ids: Ints, trained: Mask, row_starts: Ints, row_lengths: Ints, rules: Rules
) -> _Segments:
    is_end = np.isin(ids, rules.ends or ())
    new_row = np.zeros(len(ids), np.bool_)
    new_row[row_starts] = True
    starts = np.flatnonzero(new_row | _shifted(is_end, 1))
    lasts = np.append(starts[1:], len(ids))[: len(starts)] - 1
    row = np.searchsorted(row_starts, starts, side="right") - 1
    content = trained & ~is_end & ~_after_end(ids, is_end, new_row, rules.tail)
    lengths = lasts - starts + 1
    filled = _per(np.add, content, starts, lengths) > 0
    positions = np.where(content, np.arange(len(ids)), -1)
    last_content = _per(np.maximum, positions, starts, lengths)
    unmarked = np.cumsum(np.isin(ids, tuple(rules.special)) & ~trained & ~is_end)
    ended = is_end[lasts]
    measured = filled & ended
    first = np.minimum(lasts, _least(content, starts))
    asked = np.minimum(first, _least(_matches(ids, rules.asked), starts))
    opening = _matches(ids, rules.opening)
    header = lasts - 1
    return _Segments(
        row=row,
        last=lasts,
        first=first,
        lead=np.maximum(first - asked - 1, 0),
        filled=filled,
        ended=ended,
        end_trained=trained[lasts],
        gap=np.where(measured, lasts - last_content - 1, 0),
        marks=np.where(measured, unmarked[lasts] - unmarked[last_content], 0),
        runs=_per(np.add, content & ~(_shifted(content, 1) & ~new_row), starts, lengths),
        opened=_per(np.add, opening, starts, lengths) > 0,
        empty=ended & (header >= starts) & opening[header],
        full=row_lengths[row] >= rules.limit if rules.limit else np.zeros(len(row), np.bool_),
    )


def _per(reduce: Any, values: Any, starts: Ints, lengths: Ints) -> Ints:
    """Reduce the values of each stretch; an empty stretch gives 0."""
    result = np.zeros(len(starts), np.int64)
    some = lengths > 0
    if some.any():
        result[some] = reduce.reduceat(values.astype(np.int64), starts[some])
    return result


def _least(mask: Mask, starts: Ints) -> Ints:
    """Return the first position of each stretch that is in ``mask``; one behind all if none is."""
    positions = np.where(mask, np.arange(len(mask)), len(mask))
    return np.minimum.reduceat(positions, starts).astype(np.int64)


def _shifted(mask: Mask, by: int) -> Mask:
    """Return whether the token so many places before each one is in ``mask``."""
    moved = np.zeros_like(mask)
    moved[by:] = mask[:-by] if by < len(mask) else mask[:0]
    return moved


def _after_end(ids: Ints, is_end: Mask, new_row: Mask, tail: tuple[int, ...]) -> Mask:
    """Return the tokens that are what the template writes after an end, from its first on."""
    found = np.zeros_like(is_end)
    previous = is_end
    for token in tail:
        previous = _shifted(previous, 1) & ~new_row & (ids == token)
        found |= previous
    return found


def _matches(ids: Ints, wanted: tuple[int, ...]) -> Mask:
    """Return where the last token of a stretch equal to ``wanted`` is."""
    if not wanted:
        return np.zeros(len(ids), np.bool_)
    found: Mask = ids == wanted[-1]
    for back, token in enumerate(reversed(wanted[:-1]), start=1):
        found &= _shifted(ids == token, back)
    return found
