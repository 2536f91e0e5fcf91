"""What a ranking is worth against judged relevance: recall, MRR, nDCG and hit rate at a depth.

The definitions are those of trec_eval: a thing is relevant where it is judged above 0, the gain of
nDCG is the judged relevance and its discount log2(1 + rank), and MRR counts the first relevant one.
Figures are per query, so that `llmpipe.evaluation.bootstrap` can tell how sure they are. A query
without anything relevant says nothing and is left out; one without a ranking scores 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from llmpipe.evaluation.bootstrap import RowScores

Judged = Mapping[str, int]
"""The relevance of things by id, for one query. What is not judged is not relevant."""

METRICS = ("hit@1", "recall@5", "recall@10", "mrr@10", "ndcg@10")


def recall(ranking: Sequence[str], judged: Judged, depth: int) -> float:
    """Give the part of what is relevant that the first ``depth`` places hold."""
    relevant = {name for name, gain in judged.items() if gain > 0}
    return len(relevant.intersection(ranking[:depth])) / len(relevant)


def hit(ranking: Sequence[str], judged: Judged, depth: int) -> float:
    """Give 1 where the first ``depth`` places hold anything relevant, else 0."""
    return float(any(judged.get(name, 0) > 0 for name in ranking[:depth]))


def reciprocal_rank(ranking: Sequence[str], judged: Judged, depth: int) -> float:
    """Give one over the place of the first relevant thing, 0 where ``depth`` places hold none."""
    places = (n for n, name in enumerate(ranking[:depth], 1) if judged.get(name, 0) > 0)
    first = next(places, None)
    return 1 / first if first else 0.0


def ndcg(ranking: Sequence[str], judged: Judged, depth: int) -> float:
    """Give the discounted gain of the first ``depth`` places over the best that could be."""
    gains = [judged.get(name, 0) for name in ranking]
    return _discounted(gains, depth) / _discounted(sorted(judged.values(), reverse=True), depth)


def ranking_scores(
    rankings: Mapping[str, Iterable[str]],
    qrels: Mapping[str, Judged],
    metrics: Sequence[str] = METRICS,
) -> dict[str, RowScores]:
    """Give the scores of each metric, a row for every query that has anything relevant.

    ``rankings`` holds ids by query, best first; where one stands twice, its first place counts.
    The rows follow the order of ``qrels``. A metric is written as ``ndcg@10``.

    Raises:
        ValueError: a metric is not known, or no query has anything relevant.
    """
    asked = {
        query: judged for query, judged in qrels.items() if max(judged.values(), default=0) > 0
    }
    if not asked:
        raise ValueError("no query has anything that is judged relevant")
    ranked = {query: list(dict.fromkeys(rankings.get(query, ()))) for query in asked}
    scores = {}
    for metric in metrics:
        measure, depth = _measure(metric)
        rows = [measure(ranked[query], judged, depth) for query, judged in asked.items()]
        scores[metric] = RowScores.mean(rows)
    return scores


Measure = Callable[[Sequence[str], Judged, int], float]

_MEASURES: dict[str, Measure] = {"hit": hit, "recall": recall, "mrr": reciprocal_rank, "ndcg": ndcg}


def _measure(metric: str) -> tuple[Measure, int]:
    match = re.fullmatch(r"([a-z]+)@([1-9]\d*)", metric)
    if not match or match[1] not in _MEASURES:
        known = ", ".join(f"{name}@k" for name in _MEASURES)
        raise ValueError(f"{metric!r} is no metric: {known}")
    return _MEASURES[match[1]], int(match[2])


def _discounted(gains: Sequence[int], depth: int) -> float:
    return sum(max(gain, 0) / math.log2(1 + rank) for rank, gain in enumerate(gains[:depth], 1))
