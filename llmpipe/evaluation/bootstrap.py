"""Compute percentile bootstrap intervals over rows, for one model and for the difference of two.

Each row has a numerator and a denominator. The metric is the sum of the numerators divided by the
sum of the denominators: a mean if every denominator is 1, a loss per token if it is the number of
tokens. The same seed and number of rows give the same resamples, so models are compared row by row.

For a share of rows that are right or wrong, `llmpipe.evaluation.proportion` has a better interval.
A difference is always bootstrapped: if two models agree on every row, its interval is [0, 0].
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
_BATCH = 200


@dataclass(frozen=True, slots=True)
class RowScores:
    """What each row contributes to one metric of one model."""

    numerators: Sequence[float]
    denominators: Sequence[float]

    @classmethod
    def mean(cls, values: Sequence[float]) -> RowScores:
        """Return the scores whose metric is the mean of ``values``."""
        return cls(values, [1.0] * len(values))

    @property
    def value(self) -> float:
        """The metric over all rows."""
        return sum(self.numerators) / sum(self.denominators)


def resampled_metrics(scores: RowScores, seed: int, resamples: int = RESAMPLES) -> Resampled:
    """Return the metric over many resamples of the rows, drawn with replacement."""
    import numpy as np

    rows = len(scores.numerators)
    generator = np.random.default_rng(seed)
    both = np.array([scores.numerators, scores.denominators], dtype=np.float64).T
    parts: list[Any] = []
    for begin in range(0, resamples, _BATCH):
        size = min(_BATCH, resamples - begin)
        # Counts how often each row is drawn. The sums are then one matrix product.
        draws = generator.multinomial(rows, np.full(rows, 1 / rows), size=size)
        sums = draws.astype(np.float64) @ both
        parts.append(sums[:, 0] / sums[:, 1])
    values: Resampled = np.concatenate(parts)
    return values


def interval(values: Resampled, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the lower and upper percentile between which ``confidence`` of the values lie."""
    import numpy as np

    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
