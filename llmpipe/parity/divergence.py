"""Measure how far the predictions of two models differ per token: pure arithmetic on arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Predictions = NDArray[np.floating[Any]]
    """Logits or log-probabilities over the vocabulary, shape (tokens, vocabulary)."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """The difference between the predictions of a candidate and a reference, over some tokens."""

    tokens: int
    mean_kl: float
    """Mean Kullback-Leibler divergence of the candidate from the reference, in nats per token."""
    max_kl: float
    """The divergence of the token where it is largest."""
    max_difference: float
    """Largest difference between two logits (or log-probabilities, if those were given)."""
    same_first: float
    """Share of tokens for which both predict the same most likely token, from 0 to 1."""


def divergence(reference: Predictions, candidate: Predictions) -> Divergence:
    """Compare the predictions of two models for the same tokens.

    Args:
        reference: Logits or log-probabilities, shape (tokens, vocabulary).
        candidate: The same for the model that is compared.

    Raises:
        ValueError: the shapes differ, or there are no tokens.
    """
    import numpy as np

    if reference.shape != candidate.shape or reference.ndim != 2 or not len(reference):
        raise ValueError(f"cannot compare predictions of {reference.shape} and {candidate.shape}")
    kl, largest, same = [], [], []
    for one, other in zip(reference, candidate, strict=True):  # row by row, to save memory
        p, q = _log_softmax(one), _log_softmax(other)
        possible = p > -np.inf  # tokens that the reference rules out add nothing
        kl.append(float(np.sum(np.exp(p[possible]) * (p[possible] - q[possible]))))
        largest.append(float(np.max(np.abs(one.astype(np.float64) - other))))
        same.append(bool(np.argmax(p) == np.argmax(q)))
    return Divergence(
        tokens=len(kl),
        mean_kl=float(np.maximum(np.mean(kl), 0)),  # equal predictions may sum to -1e-17
        max_kl=float(np.maximum(np.max(kl), 0)),  # unlike max(), both keep NaN
        max_difference=float(np.max(largest)),
        same_first=float(np.mean(same)),
    )


def _log_softmax(logits: Any) -> Any:
    import numpy as np

    shifted = logits.astype(np.float64) - np.max(logits)
    return shifted - np.log(np.sum(np.exp(shifted)))
