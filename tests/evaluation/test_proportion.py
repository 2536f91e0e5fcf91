"""The interval of a share of rows: published values, coverage, and which metrics are shares."""

from __future__ import annotations

from math import comb
from statistics import mean

import pytest

from llmpipe.evaluation.bootstrap import RowScores
from llmpipe.evaluation.proportion import share_of_rows, wilson_interval
from llmpipe.evaluation.summary import summarize


@pytest.mark.parametrize(
    ("right", "rows", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)],
)  # fmt: skip
def test_the_interval_is_that_of_the_literature(
    right: int, rows: int, low: float, high: float
) -> None:
    """Newcombe (1998) publishes these for the score method; wrong rows mirror right rows."""
    assert wilson_interval(right, rows) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(rows - right, rows) == pytest.approx((1 - high, 1 - low), abs=5e-5)


@pytest.mark.parametrize("rows", [5, 12, 50])
def test_it_holds_the_truth_as_often_as_it_says(rows: int) -> None:
    """On average over shares, computed exactly."""
    spans = [wilson_interval(right, rows) for right in range(rows + 1)]

    def coverage(share: float) -> float:
        return sum(
            comb(rows, right) * share**right * (1 - share) ** (rows - right)
            for right, (low, high) in enumerate(spans)
            if low <= share <= high
        )

    assert mean(coverage(i / 500) for i in range(1, 500)) == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize(
    ("numerators", "denominators", "share"),
    [
        ([1.0, 0.0, 1.0], [1.0, 1.0, 1.0], (2, 3)),
        ([1.0, 0.5], [1.0, 1.0], None),  # a recall of one half
        ([3, 1, 2], [3, 1, 2], (3, 3)),  # all citations of all answers
        ([0, 0], [3, 1], (0, 2)),
        ([3, 0], [3, 1], None),  # three citations weigh more than one
        ([2, 1], [3, 1], None),
        ([812.4, 96.0], [300, 41], None),  # a loss: nats and tokens
    ],
)
def test_which_metrics_are_shares(
    numerators: list[float], denominators: list[float], share: tuple[int, int] | None
) -> None:
    """Rows that are all or nothing, and either have equal weight or all agree."""
    assert share_of_rows(RowScores(numerators, denominators)) == share


@pytest.mark.heavy
def test_twelve_right_of_twelve_are_no_certainty() -> None:
    """The interval shows the uncertainty; a difference of such models is still bootstrapped."""
    right, ranks = RowScores.mean([1.0] * 12), RowScores.mean([1.0, 0.5, 0.25, 1.0])
    summary = summarize({"a": {"hit@1": right}, "b": {"hit@1": right, "mrr@10": ranks}}, seed=0)
    metric = summary["models"]["a"]["hit@1"]
    assert metric == {"mean": 1.0, "low": 0.757506, "high": 1.0, "n": 12}
    (pair,) = summary["paired"]
    assert (pair["difference"], pair["low"], pair["high"]) == (0, 0, 0)
    metric = summary["models"]["b"]["mrr@10"]
    assert 0.25 < metric["low"] < metric["mean"] < metric["high"] <= 1
