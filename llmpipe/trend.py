"""How a noisy curve began and ended, defined once for the summary and the report.

A training loss is measured on one batch per step, so single values are noisy. The mean over the
first fifth of the logged steps is compared with the mean over the last fifth.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

WINDOW = "means of the first and last fifth"
"""The label of the two values of `trend`."""


def trend(values: Sequence[float]) -> tuple[float, float]:
    """Return the means over the first and the last fifth of ``values``, which must not be empty."""
    fifth = -(-len(values) // 5)
    return fmean(values[:fifth]), fmean(values[-fifth:])
