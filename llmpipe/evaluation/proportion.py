"""Wilson's score interval for figures that are a share of the rows.

Where every row is right or wrong, the bootstrap knows no other rows than those seen: of twelve, all
right, each resample is all right, and its interval is [1, 1]. Wilson's interval (1927) holds the
shares that twelve such rows do not speak against: [0.757, 1]. It is right on average over shares,
at few rows too; that of Clopper and Pearson never promises too much, but is wider than it needs to
be (Brown, Cai and DasGupta 2001), and wider than the bootstrap's of the figures that stand beside.
"""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

from llmpipe.evaluation.bootstrap import CONFIDENCE, RowScores


def share_of_rows(scores: RowScores) -> tuple[int, int] | None:
    """Give how many rows are right and how many there are, where that is all that they say.

    Each row is all or nothing: its numerator is its denominator, or 0. And the rows weigh the same,
    or all agree: then a row counts once, be it of one citation or of five. A mean between 0 and 1
    whose rows happen to be so (recall where one document answers, or ranks that are all first) is
    a share as well: its rows vary less than those of a share could, so the interval holds for it.
    """
    rows = list(zip(scores.numerators, scores.denominators, strict=True))
    if not rows or any(not whole or part not in (0, whole) for part, whole in rows):
        return None
    right = sum(part != 0 for part, _ in rows)
    if right not in (0, len(rows)) and len(set(scores.denominators)) > 1:
        return None
    return right, len(rows)


def wilson_interval(right: int, rows: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Give the lowest and the highest share that is compatible with ``right`` of ``rows``."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, shrunk = right / rows, 1 + z * z / rows
    centre = (share + z * z / (2 * rows)) / shrunk
    half = z * sqrt(share * (1 - share) / rows + (z / (2 * rows)) ** 2) / shrunk
    return max(0.0, centre - half), min(1.0, centre + half)
