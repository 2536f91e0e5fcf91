"""Compare what two sentences state: numbers, dates and negations.

Shared words make two sentences similar, but one number or one *not* can make them contradict. A
sentence may say less than its source: `5 March` follows from `2024-03-05`, and `40` from *at most
40 euros*.

Not covered: implied meaning (*closed* for *not open*), and what the parts do not cover:
`llmpipe.retrieval.quantities`, `llmpipe.retrieval.dates`, `llmpipe.retrieval.negations`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from llmpipe.retrieval.dates import Date, begins_with_a_date, take_dates, without_verbs
from llmpipe.retrieval.fact_words import WEEKDAYS
from llmpipe.retrieval.negations import negated_stems, spelled_out, stem
from llmpipe.retrieval.quantities import Quantity, in_digits, quantities
from llmpipe.words import plain_words

_LIST_ITEM = re.compile(r"\s*(?:[-*+•]|\d{1,3}[.)])\s")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a text states.

    Attributes:
        quantities: its numbers and codes.
        dates: its dates.
        weekdays: days of the week that it names, Monday as 1.
        negations: number of negations.
        negated: stems of negated words.
        affirmed: stems of words without a negation.
    """

    quantities: tuple[Quantity, ...]
    dates: tuple[Date, ...]
    weekdays: frozenset[int]
    negations: int
    negated: frozenset[str]
    affirmed: frozenset[str]

    def support(self, claim: Facts) -> bool:
        """Return whether this states everything that a claim states, and denies none of it."""
        return (
            all(map(self.gives, claim.quantities))
            and all(any(date.gives(wanted) for date in self.dates) for wanted in claim.dates)
            and claim.weekdays <= self.weekdays
            and not self._denies(claim)
        )

    def gives(self, wanted: Quantity) -> bool:
        """Return whether a quantity is stated, as such or as the year of a date."""
        years = {Fraction(year) for date in self.dates for year in date.years()}
        return any(quantity.agrees(wanted) for quantity in self.quantities) or (
            wanted.is_year and not years.isdisjoint(wanted.values)
        )

    def _denies(self, claim: Facts) -> bool:
        if claim.negations and not self.negations:
            return True
        if self.negated & claim.negated:
            return False  # both deny the same
        denied = self.negated - self.affirmed - claim.negated
        return bool(denied & claim.affirmed or (claim.negated - self.negated) & self.affirmed)


@lru_cache(maxsize=1 << 12)
def facts_of(text: str) -> Facts:
    """Return the facts of a text."""
    return _facts(normalized(text))


def normalized(text: str) -> str:
    """Return a text in the form from which its facts are read; see `in_digits`."""
    item = _LIST_ITEM.match(text)
    if item and not begins_with_a_date(in_digits(text)):
        text = text[item.end() :]
    return spelled_out(in_digits(without_verbs(text)))


def _facts(text: str) -> Facts:
    dates, rest = take_dates(text)
    words = plain_words(rest)
    negations = negated_stems(rest)
    negated = Counter(negations)
    return Facts(
        quantities=tuple(quantities(rest)),
        dates=tuple(dates),
        weekdays=frozenset(WEEKDAYS[word] for word in words if word in WEEKDAYS),
        negations=len(negations),
        negated=frozenset(filter(None, negated)),
        affirmed=frozenset(Counter(map(stem, words)) - negated),
    )
