"""Combine rankings, and diversify a ranking. All functions are pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

Fusion = Literal["relative_score", "rrf"]

RELATIVE_SCORE: Fusion = "relative_score"

ALPHA = 0.75
"""Weight of the vector score in a hybrid search. With whole questions, this order is about as good
as that of vectors alone, and half of the names and codes that vectors miss are found. A lower
weight finds more of those: `benchmarks.retrieval` measures both."""

RRF_K = 60
"""The constant of the paper: a higher one lowers the advantage of the first ranks."""


def fusion_problems(
    fusion: Fusion, alpha: float, *, hybrid: bool
) -> list[tuple[tuple[str, ...], str]]:
    """Return which of the settings ``fusion`` and ``alpha`` have no effect, and why."""
    changed = {"fusion": fusion != RELATIVE_SCORE, "alpha": alpha != ALPHA}
    if not hybrid:
        why = "has no effect: no search is `hybrid`"
        return [((name,), why) for name, is_changed in changed.items() if is_changed]
    if fusion == "rrf" and changed["alpha"]:
        return [(("alpha",), "has no effect: `rrf` uses only ranks")]
    return []


def reciprocal_rank_fusion(rankings: Sequence[Sequence[int]], k: int = RRF_K) -> dict[int, float]:
    """Return the fused score of each item, best first; ties are ordered by item number.

    The score of an item is the sum of ``1 / (k + rank)`` over the rankings that contain it, with
    ranks from 1 (Cormack, Clarke and Büttcher 2009). A ranking contains an item at most once.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + 1 / (k + rank)
    return _best_first(scores)


def relative_score_fusion(
    dense: Mapping[int, float], bm25: Mapping[int, float], alpha: float = ALPHA
) -> dict[int, float]:
    """Return the fused score of each item from 0 to 1, best first; ties are ordered by item number.

    score = alpha × scaled dense score + (1 − alpha) × BM25 score ÷ highest BM25 score. Dense
    scores are scaled so that the lowest is 0 and the highest is 1. Unlike ranks, this convex
    combination (Bruch, Gai and Ingber 2023) keeps how much better one item is than the next. Both
    mappings score the same items.
    """
    greatest = max(bm25.values(), default=0.0) or 1.0
    scores = {
        item: alpha * near + min((1 - alpha) * bm25[item] / greatest, 1 - alpha)  # may underflow
        for item, near in zip(dense, scaled(list(dense.values())), strict=True)
    }
    return _best_first(scores)


def maximal_marginal_relevance(
    relevance: Sequence[float],
    similarity: Sequence[Sequence[float]],
    count: int,
    trade_off: float,
) -> list[int]:
    """Return ``count`` positions in the order of maximal marginal relevance.

    Each step takes the position with the highest ``trade_off`` × relevance − (1 − ``trade_off``) ×
    highest similarity to those already taken (Carbonell and Goldstein 1998); ties go to the first.
    A trade-off of 1 keeps the order of relevance, 0 considers only variety.
    """
    waiting = list(range(len(relevance)))
    closest = [0.0] * len(relevance)
    chosen: list[int] = []
    while waiting and len(chosen) < count:
        best = max(waiting, key=lambda i: trade_off * relevance[i] - (1 - trade_off) * closest[i])
        waiting.remove(best)
        for i in waiting:
            near = float(similarity[best][i])
            closest[i] = max(closest[i], near) if chosen else near
        chosen.append(best)
    return chosen


def scaled(scores: Sequence[float]) -> list[float]:
    """Scale scores to the range from 0 to 1; if all are equal, they become 1."""
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    return [(score - low) / (high - low) if high > low else 1.0 for score in scores]


def _best_first(scores: Mapping[int, float]) -> dict[int, float]:
    return dict(sorted(scores.items(), key=lambda pair: (-pair[1], pair[0])))
