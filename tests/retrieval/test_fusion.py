"""Fusing rankings and diversifying results: the papers' formulas, and properties for any input."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.retrieval.fusion import (
    ALPHA,
    Fusion,
    fusion_problems,
    maximal_marginal_relevance,
    reciprocal_rank_fusion,
    relative_score_fusion,
    scaled,
)

RANKINGS = st.lists(st.lists(st.integers(0, 30), unique=True), max_size=4)
UNITS = st.floats(0, 1)


def test_the_formula_of_reciprocal_rank_fusion() -> None:
    """By hand: sum of 1/(60+rank); an item in both lists beats both first ones."""
    fused = reciprocal_rank_fusion([[7, 3, 5], [9, 3]])
    assert fused == pytest.approx({3: 2 / 62, 7: 1 / 61, 9: 1 / 61, 5: 1 / 63})
    assert list(fused) == [3, 7, 9, 5]  # 7 before 9: equal scores by number


@given(RANKINGS)
def test_fusion_holds_everything_once_best_first(rankings: list[list[int]]) -> None:
    """Nothing is lost or added, and scores never increase."""
    fused = reciprocal_rank_fusion(rankings)
    assert set(fused) == {item for ranking in rankings for item in ranking}
    assert list(fused.values()) == sorted(fused.values(), reverse=True)


@given(RANKINGS, st.randoms())
def test_fusion_does_not_ask_which_ranking_came_first(
    rankings: list[list[int]], draw: object
) -> None:
    """The order of the rankings does not matter."""
    shuffled = rankings.copy()
    draw.shuffle(shuffled)  # type: ignore[attr-defined]
    assert reciprocal_rank_fusion(shuffled) == pytest.approx(reciprocal_rank_fusion(rankings))


@given(st.lists(st.integers(0, 30), unique=True))
def test_one_ranking_stays_as_it_is(ranking: list[int]) -> None:
    """Fused alone, it keeps its order."""
    assert list(reciprocal_rank_fusion([ranking])) == ranking


def test_the_formula_of_relative_score_fusion() -> None:
    """By hand: cosines scaled to 0–1, BM25 scores divided by the highest."""
    dense = {4: 0.5, 7: 0.3, 2: 0.1}
    bm25 = {4: 0.0, 7: 5.0, 2: 10.0}
    fused = relative_score_fusion(dense, bm25, alpha=0.75)
    assert fused == pytest.approx({4: 0.75, 7: 0.75 * 0.5 + 0.25 * 0.5, 2: 0.25})
    assert list(fused) == [4, 7, 2]
    assert list(relative_score_fusion(dense, bm25, alpha=0)) == [2, 7, 4]
    assert list(relative_score_fusion({3: 0.2, 1: 0.2}, {3: 0.0, 1: 0.0})) == [1, 3]
    assert relative_score_fusion({}, {}) == {}
    tiny = relative_score_fusion({1: 0.2, 2: 0.1}, {1: 5e-324, 2: 0.0}, alpha=0.25)
    assert tiny == {1: 1.0, 2: 0.0}  # a product of the smallest number does not round up to itself


@given(st.dictionaries(st.integers(0, 30), st.tuples(st.floats(-1, 1), st.floats(0, 50))), UNITS)
def test_relative_scores_hold_everything_best_first(
    scores: dict[int, tuple[float, float]], alpha: float
) -> None:
    """Nothing is lost or added; with a vector weight of 0, the order is that of BM25."""
    dense = {item: near for item, (near, _) in scores.items()}
    bm25 = {item: words for item, (_, words) in scores.items()}
    fused = relative_score_fusion(dense, bm25, alpha)
    assert set(fused) == set(scores)
    assert list(fused.values()) == sorted(fused.values(), reverse=True)
    assert all(0 <= score <= 1 + 1e-9 for score in fused.values())
    by_words = [bm25[item] for item in relative_score_fusion(dense, bm25, 0)]
    assert by_words == pytest.approx(sorted(by_words, reverse=True), abs=1e-9)


@pytest.mark.parametrize(
    ("fusion", "alpha", "hybrid", "fields"),
    [
        ("relative_score", ALPHA, True, []),
        ("relative_score", 0.5, True, []),
        ("rrf", ALPHA, True, []),
        ("rrf", 0.5, True, ["alpha"]),
        ("rrf", 0.5, False, ["fusion", "alpha"]),
        ("relative_score", ALPHA, False, []),
    ],
)
def test_settings_without_effect(
    fusion: Fusion, alpha: float, hybrid: bool, fields: list[str]
) -> None:
    """Settings of a spec that change nothing are reported."""
    found = fusion_problems(fusion, alpha, hybrid=hybrid)
    assert [path for path, _ in found] == [(name,) for name in fields]
    assert all("has no effect" in message for _, message in found)


def test_the_formula_of_maximal_marginal_relevance() -> None:
    """By hand: the second is a copy of the first, so the third comes before it."""
    relevance = [0.9, 0.89, 0.5]
    similarity = [[1, 1, 0.1], [1, 1, 0.1], [0.1, 0.1, 1]]
    # Second place: 0.5·0.89 − 0.5·1 = −0.055 against 0.5·0.5 − 0.5·0.1 = 0.2.
    assert maximal_marginal_relevance(relevance, similarity, 3, 0.5) == [0, 2, 1]
    assert maximal_marginal_relevance(relevance, similarity, 3, 1.0) == [0, 1, 2]
    assert maximal_marginal_relevance(relevance, similarity, 2, 0.0) == [0, 2]


def test_being_unlike_counts_too() -> None:
    """A passage opposite to those chosen comes before one that is merely different."""
    similarity = [[1, 0, -0.5], [0, 1, 0], [-0.5, 0, 1]]
    assert maximal_marginal_relevance([1, 0.5, 0.5], similarity, 2, 0.5) == [0, 2]


@given(st.data(), st.lists(UNITS, max_size=8), UNITS, st.integers(0, 10))
def test_varied_choices_are_a_choice(
    data: st.DataObject, relevance: list[float], trade_off: float, count: int
) -> None:
    """As many positions as requested or available; a longer choice begins with the shorter one."""
    n = len(relevance)
    rows = st.lists(UNITS, min_size=n, max_size=n)
    similarity = data.draw(st.lists(rows, min_size=n, max_size=n))
    chosen = maximal_marginal_relevance(relevance, similarity, count, trade_off)
    assert len(chosen) == len(set(chosen)) == min(count, n)
    assert set(chosen) <= set(range(n))
    assert maximal_marginal_relevance(relevance, similarity, n, trade_off)[:count] == chosen


@given(st.lists(UNITS, max_size=8))
def test_trade_off_one_is_the_order_of_relevance(relevance: list[float]) -> None:
    """Similarity does not matter then."""
    similarity = [[0.5] * len(relevance)] * len(relevance)
    order = maximal_marginal_relevance(relevance, similarity, len(relevance), 1.0)
    assert [relevance[i] for i in order] == sorted(relevance, reverse=True)


@given(st.lists(st.floats(-1e6, 1e6), max_size=8))
def test_scaled_scores_keep_their_order_between_0_and_1(scores: list[float]) -> None:
    """The highest is 1; if they differ, the lowest is 0."""
    stretched = scaled(scores)
    assert all(0 <= score <= 1 for score in stretched)
    for (a, x), (b, y) in itertools.pairwise(zip(scores, stretched, strict=True)):
        assert (a <= b) == (x <= y) or x == y
    if scores:
        assert max(stretched) == 1
