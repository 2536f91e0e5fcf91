"""Make one ranking of several, and a varied one of a repetitive one: pure functions of numbers."""

from __future__ import annotations

from collections.abc import Sequence

RRF_K = 60
"""The constant of the paper: how little the first places count more than those after them."""


def reciprocal_rank_fusion(rankings: Sequence[Sequence[int]], k: int = RRF_K) -> dict[int, float]:
    """Give the fused score of everything ranked, best first, ties by number.

    A thing's score is the sum of ``1 / (k + rank)`` over the rankings that hold it, ranks counted
    from 1 (Cormack, Clarke and Büttcher 2009). Each ranking holds a thing once at most.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + 1 / (k + rank)
    return dict(sorted(scores.items(), key=lambda pair: (-pair[1], pair[0])))


def maximal_marginal_relevance(
    relevance: Sequence[float],
    similarity: Sequence[Sequence[float]],
    count: int,
    trade_off: float,
) -> list[int]:
    """Give ``count`` positions in the order of their maximal marginal relevance.

    Each next one has the most of ``trade_off`` × its relevance less (1 − ``trade_off``) × its
    greatest similarity to those before it (Carbonell and Goldstein 1998); of equals the first.
    1 gives the order of relevance, 0 asks for variety alone.
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
    """Stretch scores over 0 to 1; equal ones are all 1."""
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    return [(score - low) / (high - low) if high > low else 1.0 for score in scores]
