"""Percentile bootstrap intervals over rows, for one model and for the difference of two.

For a share of rows that are right or wrong `llmpipe.evaluation.proportion` has a better interval; a
difference is always bootstrapped: where two models agree on every row, its interval is [0, 0].

Every row gives a numerator and a denominator, and the figure is the sum of the one over the sum
of the other: a mean where each denominator is 1, a loss per token where it counts tokens. The same
seed and number of rows give the same resamples, so that two models are compared row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Resampled = npt.NDArray[np.float64]

RESAMPLES = 4000
CONFIDENCE = 0.95
_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class RowScores:
    """What every row contributes to one figure of one model."""

    numerators: Sequence[float]
    denominators: Sequence[float]

    @classmethod
    def mean(cls, values: Sequence[float]) -> RowScores:
        """Give the scores whose figure is the plain mean of ``values``."""
        return cls(values, [1.0] * len(values))

    @property
    def figure(self) -> float:
        """The figure over all rows as they are."""
        return sum(self.numerators) / sum(self.denominators)


def resampled_figures(scores: RowScores, seed: int, resamples: int = RESAMPLES) -> Resampled:
    """Give the figure over many resamples of the rows, each drawn with replacement."""
    import numpy as np

    rows = len(scores.numerators)
    generator = np.random.default_rng(seed)
    both = np.array([scores.numerators, scores.denominators], dtype=np.float64).T
    parts: list[Any] = []
    for begin in range(0, resamples, _AT_ONCE):
        size = min(_AT_ONCE, resamples - begin)
        # How often each row is drawn; the sums are then one product of matrices.
        draws = generator.multinomial(rows, np.full(rows, 1 / rows), size=size)
        sums = draws.astype(np.float64) @ both
        parts.append(sums[:, 0] / sums[:, 1])
    figures: Resampled = np.concatenate(parts)
    return figures


def interval(figures: Resampled, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Give the lower and upper percentile between which ``confidence`` of the figures lie."""
    import numpy as np

    tail = (1 - confidence) / 2
    low, high = np.quantile(figures, [tail, 1 - tail])
    return float(low), float(high)
