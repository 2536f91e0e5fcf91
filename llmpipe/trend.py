"""Say how a noisy curve began and how it ended: the one definition that every place shows.

A training loss is measured on one batch a step: a single step's value is noise. The mean over the
first and over the last fifth of what was logged is compared instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

WINDOW = "means of the first and last fifth"
"""What the two figures of `trend` are, in the words that stand beside them."""


def trend(values: Sequence[float]) -> tuple[float, float]:
    """Return the means over the first and the last fifth of ``values``, which must not be empty."""
    fifth = -(-len(values) // 5)
    return fmean(values[:fifth]), fmean(values[-fifth:])
