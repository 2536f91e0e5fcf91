"""Score rankings against judged relevance: recall, MRR, nDCG and hit rate at a depth.

The definitions are those of trec_eval. An item is relevant if it is judged above 0. The gain of
nDCG is the judged relevance, its discount is log2(1 + rank). MRR uses the first relevant item.
Scores are per query, for the intervals of `llmpipe.evaluation.bootstrap`. A query without relevant
items is left out; one without a ranking scores 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from llmpipe.evaluation.bootstrap import RowScores

Judged = Mapping[str, int]
"""Relevance by item id, for one query. Items that are not judged are not relevant."""

METRICS = ("hit@1", "recall@5", "recall@10", "mrr@10", "ndcg@10")


def recall(ranking: Sequence[str], judged: Judged, depth: int) -> float:
    """Return the share of relevant items that are in the first ``depth`` ranks."""
    relevant = {name for name, gain in judged.items() if gain > 0}
    return len(relevant.intersection(ranking[:depth])) / len(relevant)


def hit(ranking: Sequence[str], judged: Judged, depth: int) -> float:
    """Return 1 if any of the first ``depth`` ranks is relevant, else 0."""
    return float(any(judged.get(name, 0) > 0 for name in ranking[:depth]))


def reciprocal_rank(ranking: Sequence[str], judged: Judged, depth: int) -> float:
    """Return 1 divided by the rank of the first relevant item; 0 beyond ``depth``."""
    places = (n for n, name in enumerate(ranking[:depth], 1) if judged.get(name, 0) > 0)
    first = next(places, None)
    return 1 / first if first else 0.0


def ndcg(ranking: Sequence[str], judged: Judged, depth: int) -> float:
    """Return the discounted gain of the first ``depth`` ranks divided by the highest possible."""
    gains = [judged.get(name, 0) for name in ranking]
    return _discounted(gains, depth) / _discounted(sorted(judged.values(), reverse=True), depth)


def ranking_scores(
    rankings: Mapping[str, Iterable[str]],
    qrels: Mapping[str, Judged],
    metrics: Sequence[str] = METRICS,
) -> dict[str, RowScores]:
    """Return the scores of each metric, with a row for every query that has relevant items.

    Args:
        rankings: ids by query, best first; of repeated ids, the first counts.
        qrels: relevance by query. The rows are in this order.
        metrics: names such as ``ndcg@10``.

    Raises:
        ValueError: a metric is unknown, or no query has relevant items.
    """
    asked = {
        query: judged for query, judged in qrels.items() if max(judged.values(), default=0) > 0
    }
    if not asked:
        raise ValueError("no query has a document that is judged relevant")
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
        raise ValueError(f"{metric!r} is not a metric: {known}")
    return _MEASURES[match[1]], int(match[2])


def _discounted(gains: Sequence[int], depth: int) -> float:
    return sum(max(gain, 0) / math.log2(1 + rank) for rank, gain in enumerate(gains[:depth], 1))
