"""Make one ranking of several, and a varied one of a repetitive one: pure functions of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

Fusion = Literal["relative_score", "rrf"]

RELATIVE_SCORE: Fusion = "relative_score"

ALPHA = 0.75
"""What the meaning counts beside the words. On whole questions the order is then about as good as
that by meaning alone, and half of the names and codes that meaning misses are found; less of it
finds more of them: `benchmarks.retrieval` measures both."""

RRF_K = 60
"""The constant of the paper: how little the first places count more than those after them."""


def fusion_problems(
    fusion: Fusion, alpha: float, *, hybrid: bool
) -> list[tuple[tuple[str, ...], str]]:
    """Say which of the settings ``fusion`` and ``alpha`` have no effect, and why."""
    changed = {"fusion": fusion != RELATIVE_SCORE, "alpha": alpha != ALPHA}
    if not hybrid:
        why = "has no effect: no search is `hybrid`"
        return [((name,), why) for name, is_changed in changed.items() if is_changed]
    if fusion == "rrf" and changed["alpha"]:
        return [(("alpha",), "has no effect: `rrf` looks at places alone")]
    return []


def reciprocal_rank_fusion(rankings: Sequence[Sequence[int]], k: int = RRF_K) -> dict[int, float]:
    """Give the fused score of everything ranked, best first, ties by number.

    A thing's score is the sum of ``1 / (k + rank)`` over the rankings that hold it, ranks counted
    from 1 (Cormack, Clarke and Büttcher 2009). Each ranking holds a thing once at most.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + 1 / (k + rank)
    return _best_first(scores)


def relative_score_fusion(
    dense: Mapping[int, float], bm25: Mapping[int, float], alpha: float = ALPHA
) -> dict[int, float]:
    """Give the fused score, 0 to 1, of everything scored, best first, ties by number.

    It is ``alpha`` × the dense score, stretched so that the least is 0 and the greatest 1, plus
    (1 − ``alpha``) × BM25's score as a part of the greatest: a convex combination of scores
    (Bruch, Gai and Ingber 2023), which keeps what ranks lose, by how much one thing is better
    than the next. Both score the same things.
    """
    greatest = max(bm25.values(), default=0.0) or 1.0
    scores = {
        item: alpha * near + (1 - alpha) * bm25[item] / greatest
        for item, near in zip(dense, scaled(list(dense.values())), strict=True)
    }
    return _best_first(scores)


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


def _best_first(scores: Mapping[int, float]) -> dict[int, float]:
    return dict(sorted(scores.items(), key=lambda pair: (-pair[1], pair[0])))
