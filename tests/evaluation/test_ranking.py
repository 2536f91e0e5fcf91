"""Ranking metrics: textbook values, and properties that always hold."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.evaluation.bootstrap import interval, resampled_metrics
from llmpipe.evaluation.ranking import hit, ndcg, ranking_scores, recall, reciprocal_rank

JUDGED = {"a": 3, "b": 2, "c": 3, "d": 0, "e": 1, "f": 2}
NAMES = st.sampled_from("abcdefghij")
QRELS = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3"]),
    st.dictionaries(NAMES, st.integers(0, 3), min_size=1),
    min_size=1,
)
RANKING = st.lists(NAMES, unique=True)


def test_the_worked_example_of_ndcg() -> None:
    """Six documents judged 3, 2, 3, 0, 1, 2 in this order: DCG 6.861, the best 7.141 (Järvelin)."""
    gained = sum(g / math.log2(i + 1) for i, g in enumerate([3, 2, 3, 0, 1, 2], 1))
    assert gained == pytest.approx(6.861, abs=1e-3)
    assert ndcg(list("abcdef"), JUDGED, 6) == pytest.approx(6.861 / 7.141, abs=1e-3)
    assert ndcg(list("abcdef"), JUDGED, 1) == 1
    assert ndcg(list("dabcef"), JUDGED, 1) == 0


def test_the_others_by_hand() -> None:
    """Five of six are relevant; the first relevant one is second."""
    ranking = ["d", "b", "x", "a"]
    assert recall(ranking, JUDGED, 2) == 1 / 5
    assert recall(ranking, JUDGED, 10) == 2 / 5
    assert (hit(ranking, JUDGED, 1), hit(ranking, JUDGED, 2)) == (0, 1)
    assert reciprocal_rank(ranking, JUDGED, 10) == 1 / 2
    assert reciprocal_rank(ranking, JUDGED, 1) == 0


def test_queries_and_rows() -> None:
    """Without a ranking: 0. Without relevant items: left out. Repeats count once."""
    qrels = {"q1": {"a": 1, "b": 1}, "q2": {"a": 1}, "q3": {"a": 0}, "q4": {}}
    rankings = {"q1": ["x", "x", "x", "a", "a", "b"], "q3": ["a"], "unasked": ["a"]}
    scores = ranking_scores(rankings, qrels, ("recall@3", "mrr@10", "hit@1"))
    assert list(scores["recall@3"].numerators) == [1.0, 0.0]  # x, a, b
    assert list(scores["mrr@10"].numerators) == [0.5, 0.0]
    assert scores["recall@3"].value == 0.5
    for wrong in ("ndcg", "ndcg@0", "map@10", "ndcg@x"):
        with pytest.raises(ValueError, match="is not a metric"):
            ranking_scores(rankings, qrels, (wrong,))
    with pytest.raises(ValueError, match="no query"):
        ranking_scores(rankings, {"q3": {"a": 0}})


@pytest.mark.heavy
def test_the_metrics_have_intervals() -> None:
    """The bootstrap takes one row per query."""
    qrels = {f"q{n}": {"a": 1} for n in range(50)}
    rankings = {f"q{n}": ["a", "b"] if n % 2 else ["b", "a"] for n in range(50)}
    scores = ranking_scores(rankings, qrels, ("hit@1",))["hit@1"]
    low, high = interval(resampled_metrics(scores, seed=0))
    assert scores.value == 0.5
    assert low == pytest.approx(0.36, abs=0.03)
    assert high == pytest.approx(0.64, abs=0.03)


@given(
    RANKING,
    st.dictionaries(NAMES, st.integers(-1, 3)).filter(lambda j: max(j.values(), default=0) > 0),
    st.integers(1, 12),
)
def test_between_0_and_1_and_1_for_the_best(
    ranking: list[str], judged: dict[str, int], depth: int
) -> None:
    """The order of relevance is the best; a greater depth never loses what was found."""
    best = sorted(judged, key=lambda name: -judged[name])
    for measure in (recall, hit, reciprocal_rank, ndcg):
        score = measure(ranking, judged, depth)
        assert 0 <= score <= 1 + 1e-12
        assert score <= measure(best, judged, depth) + 1e-12
    assert ndcg(best, judged, depth) == pytest.approx(1)
    for measure in (recall, hit, reciprocal_rank):
        assert measure(ranking, judged, depth) <= measure(ranking, judged, depth + 1)
    assert hit(ranking, judged, depth) == (reciprocal_rank(ranking, judged, depth) > 0)


@given(st.dictionaries(st.sampled_from(["q1", "q2"]), RANKING), QRELS)
def test_any_rankings_give_a_row_for_each_query_with_something_relevant(
    rankings: dict[str, list[str]], qrels: dict[str, dict[str, int]]
) -> None:
    """Or an error if there is none."""
    asked = [query for query, judged in qrels.items() if any(judged.values())]
    if not asked:
        with pytest.raises(ValueError, match="no query"):
            ranking_scores(rankings, qrels)
        return
    for scores in ranking_scores(rankings, qrels).values():
        assert len(scores.numerators) == len(asked)
