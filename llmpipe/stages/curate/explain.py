"""What a threshold means for these rows: pairs just above and just below it, and how many words."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from typing import Any

from llmpipe.formats.leakage import normalize
from llmpipe.stages.curate.pool import Pool

NEAR = 0.2
"""How far below the threshold a pair may be to explain it."""
SHOWN = 12
"""Words of a difference that are shown."""


class Explanation:
    """The closest pairs on both sides of the threshold."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._kept = pool.kept  # the positions of the rows, before any is dropped
        self._above: tuple[float, int, int] | None = None
        self._below: tuple[float, int, int] | None = None

    def above(self, score: float, row: int, other: int) -> None:
        """Note a pair of duplicates."""
        if self._above is None or score < self._above[0]:
            self._above = score, row, other

    def below(self, score: float, row: int, other: int) -> None:
        """Note a pair that is not similar enough."""
        if self._below is None or score > self._below[0]:
            self._below = score, row, other

    def metrics(self, threshold: float, sizes: array[int]) -> Mapping[str, Any]:
        """Return what the threshold allows in a row of usual length, with one pair on each side."""
        usual = sorted(size for size in sizes if size)
        words = usual[len(usual) // 2] if usual else 0
        found: dict[str, Any] = {
            "score": threshold,
            "median_different_words": words,
            "words_that_may_differ": int(words * (1 - threshold) / (1 + threshold) + 1e-9),
        }
        for name, pair in (("just_dropped", self._above), ("just_kept", self._below)):
            if pair is not None and pair[0] >= threshold - NEAR:
                found[name] = self._shown(*pair)
        return found

    def _shown(self, score: float, row: int, other: int) -> Mapping[str, Any]:
        kept, rows = self._kept, self._pool.rows
        mine, theirs = (
            [w for turn in rows.said(kept[i]) if turn.is_turn for w in normalize(turn.text).split()]
            for i in (row, other)
        )
        return {
            "score": round(score, 4),
            "rows": [self._pool.place(kept[row]), self._pool.place(kept[other])],
            "only_in_first": _only(mine, theirs),
            "only_in_second": _only(theirs, mine),
        }


def _only(words: Iterable[str], others: Iterable[str]) -> str:
    """Return the words that are not among the others, cut where they are many."""
    known = frozenset(others)
    found = [word for word in dict.fromkeys(words) if word not in known]
    return " ".join(found[:SHOWN]) + (" …" if len(found) > SHOWN else "")
