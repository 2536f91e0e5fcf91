"""Compute Wilson's score interval for metrics that are a share of the rows.

If every row is right or wrong, the bootstrap interval is too narrow for few rows: if twelve of
twelve are right, each resample is all right, and the interval is [1, 1]. Wilson's interval (1927)
contains all shares that are compatible with the rows: [0.757, 1]. Its coverage is right on average
over shares, even for few rows. The interval of Clopper and Pearson never covers too little, but is
wider than necessary (Brown, Cai and DasGupta 2001), and wider than bootstrap intervals beside it.
"""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

from llmpipe.evaluation.bootstrap import CONFIDENCE, RowScores


def share_of_rows(scores: RowScores) -> tuple[int, int] | None:
    """Return how many rows are right and how many there are, or None if it is not a share.

    In a share, each row is all or nothing: its numerator is its denominator or 0. The rows also
    have equal weight, unless all agree: then a row counts once, with one citation or with five.

    A mean of values between 0 and 1 can happen to consist of zeros and ones (recall with one
    relevant document, or only first ranks). It counts as a share too: its rows vary less than those
    of a share could, so the interval is valid.
    """
    rows = list(zip(scores.numerators, scores.denominators, strict=True))
    if not rows or any(not whole or part not in (0, whole) for part, whole in rows):
        return None
    right = sum(part != 0 for part, _ in rows)
    if right not in (0, len(rows)) and len(set(scores.denominators)) > 1:
        return None
    return right, len(rows)


def wilson_interval(right: int, rows: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the lowest and highest share compatible with ``right`` of ``rows``."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, shrunk = right / rows, 1 + z * z / rows
    center = (share + z * z / (2 * rows)) / shrunk
    half = z * sqrt(share * (1 - share) / rows + (z / (2 * rows)) ** 2) / shrunk
    return max(0.0, center - half), min(1.0, center + half)
