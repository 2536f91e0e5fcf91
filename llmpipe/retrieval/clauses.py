"""Find the words that a quantity belongs to: *adults 5 euros, children 3* is not *children 5*.

A text is split into clauses with one quantity each. The words before a quantity belong to it, and
so do years and dates beside it. In a source, later clauses of a sentence share the subject of the
first one. The clause of a source that shares most words with a clause of the claim is taken to be
about the same thing. It must state the same quantity, if it states any of that kind.

Not covered: *adults and children pay 5 and 3 euros*.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from llmpipe.retrieval.dates import take_dates
from llmpipe.retrieval.fact_words import CONJUNCTIONS, FUNCTION_WORDS
from llmpipe.retrieval.facts import normalized
from llmpipe.retrieval.negations import stem
from llmpipe.retrieval.quantities import Quantity, quantities
from llmpipe.retrieval.tables import cells_of
from llmpipe.retrieval.unit_words import UNITS
from llmpipe.words import plain_words

_DIGIT = re.compile(r"\d")
_BREAK = re.compile(
    rf"[,;:](?!\d)|[、。]|\s[–—|]\s|[!?]\s|\b(?:{'|'.join(sorted(CONJUNCTIONS))})\b"
)


@dataclass(frozen=True, slots=True)
class Clause:
    """A part of a text with its quantities.

    Attributes:
        quantities: its quantities, except those that read like years.
        words: stems of the other words, and the years and days named beside them.
        is_cell: whether it is a table cell. A claim need not repeat the name of its column.
    """

    quantities: tuple[Quantity, ...]
    words: frozenset[str]
    is_cell: bool = False

    def likeness(self, other: Clause) -> tuple[int, float]:
        """Return the number of shared words, and their share of the other clause's words."""
        shared = len(self.words & other.words)
        return shared, 1.0 if other.is_cell else shared / max(1, len(other.words))

    def agrees(self, other: Clause) -> bool:
        """Return whether another clause states each of these quantities, or none of that kind."""
        return all(
            any(given.agrees(wanted) for given in other.quantities)
            for wanted in self.quantities
            if other.speaks_of(wanted)
        )

    def speaks_of(self, wanted: Quantity) -> bool:
        """Return whether it has a quantity of the same kind."""
        return any(quantity.comparable(wanted) for quantity in self.quantities)


def clauses(text: str, names: str = "") -> list[Clause]:
    """Return the clauses of a text that contain quantities.

    Args:
        text: a sentence, or a table row.
        names: the row of column names above it; empty for a sentence.
    """
    if names:
        return _clauses_of_row(cells_of(text.strip()), cells_of(names))
    found: list[Clause] = []
    before, text = "", normalized(text)
    for part in _BREAK.split(text) if _DIGIT.search(text) else []:
        clause = _clause(f"{before} {part}")
        before = "" if clause.quantities else f"{before} {part}"
        if clause.quantities:
            found.append(clause)
    if found and before:
        rest = _clause(before)
        found[-1] = replace(found[-1], words=found[-1].words | rest.words)
    return found


def clauses_of_source(text: str, names: str = "") -> list[Clause]:
    """Return the clauses of a passage's sentence; later ones include the words of the first."""
    found = clauses(text, names)
    return [*found[:1], *(_after(found[0], clause) for clause in found[1:])]


def _after(first: Clause, clause: Clause) -> Clause:
    return clause if clause.is_cell else replace(clause, words=clause.words | first.words)


def misplaced(claim: Iterable[Clause], source: Sequence[Clause]) -> bool:
    """Return whether a claim states a quantity beside other words than its source does."""
    return any(_elsewhere(clause, source) for clause in claim)


def _elsewhere(clause: Clause, source: Sequence[Clause]) -> bool:
    speaking = [other for other in source if any(map(other.speaks_of, clause.quantities))]
    likeness = [clause.likeness(other) for other in speaking]
    best = max(likeness, default=(0, 0.0))
    nearest = [other for other, alike in zip(speaking, likeness, strict=True) if alike == best]
    return best[0] > 0 and not any(map(clause.agrees, nearest))


def _clauses_of_row(cells: Sequence[str], names: Sequence[str]) -> list[Clause]:
    """Return a clause for each cell, with its column name, the first cell and the text cells."""
    named = list(zip_longest(names, cells, fillvalue=""))
    in_words = " ".join(cell for cell in cells if not _DIGIT.search(cell))
    label = f"{' '.join(named[0])} {in_words}"
    texts = [f"{label} {name} {cell}" for name, cell in named[1:]] or [label]
    found = [replace(_clause(normalized(text)), is_cell=True) for text in texts]
    return [clause for clause in found if clause.quantities]


def _clause(text: str) -> Clause:
    _, undated = take_dates(text)
    found = quantities(undated)
    years = {str(value) for one in found if one.is_year for value in one.values}
    return Clause(tuple(one for one in found if not one.is_year), frozenset(_stems(text) | years))


def _stems(text: str) -> set[str]:
    return {
        stem(word)
        for word in plain_words(text)
        if not word.isdigit() and word not in UNITS and word not in FUNCTION_WORDS
    }
