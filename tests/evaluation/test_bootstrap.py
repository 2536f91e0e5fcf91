"""Intervals: known sampling error, pairing, repeatability."""

from __future__ import annotations

import random

import pytest

from llmpipe.evaluation.bootstrap import RowScores, interval, resampled_metrics
from llmpipe.evaluation.summary import compact, summarize, table

pytestmark = pytest.mark.heavy  # numpy is one of the extras


def gaussian(rows: int, mean: float) -> list[float]:
    """Return rows of unit variance around a mean."""
    draw = random.Random(rows)
    return [draw.gauss(mean, 1) for _ in range(rows)]


def test_interval_has_the_width_of_the_normal_theory():
    """For 400 rows of unit variance, the interval is about the mean ± 1.96/20."""
    scores = RowScores.mean(gaussian(400, 5))
    low, high = interval(resampled_metrics(scores, seed=0))
    assert low < scores.value < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.1)


def test_interval_covers_the_truth_as_often_as_it_says():
    """Over 200 samples, 95 % intervals contain the true mean 90 % to 99 % of the time."""
    draw = random.Random(1)
    hits = 0
    for seed in range(200):
        scores = RowScores.mean([draw.gauss(0, 1) for _ in range(60)])
        low, high = interval(resampled_metrics(scores, seed, resamples=1000))
        hits += low <= 0 <= high
    assert 180 <= hits <= 198


def test_metric_is_weighted_by_denominators():
    """A loss is per token over the set: a row of nine tokens weighs nine times a row of one."""
    scores = RowScores([9.0, 3.0], [9, 1])
    assert scores.value == pytest.approx(1.2)


def test_pairing_narrows_the_interval():
    """Two models with a constant difference on every row differ surely, however rows vary."""
    a = gaussian(50, 0)
    b = [value + 0.1 for value in a]
    summary = summarize(
        {"one": {"loss": RowScores.mean(a)}, "two": {"loss": RowScores.mean(b)}}, seed=0
    )
    pair = summary["paired"][0]
    assert (pair["a"], pair["b"], pair["metric"]) == ("one", "two", "loss")
    assert pair["low"] == pytest.approx(pair["high"]) == pytest.approx(0.1)


def test_same_seed_same_metrics():
    """The summary is a function of scores and seed."""
    scores = {"m": {"rouge_l": RowScores.mean(gaussian(30, 0))}}
    assert summarize(scores, seed=3) == summarize(scores, seed=3)
    assert summarize(scores, seed=3) != summarize(scores, seed=4)


def test_summary_pairs_what_both_models_have():
    """A GGUF has no loss, so it is paired on the rest; the compact form compares with the first."""
    text = {"rouge_l": RowScores.mean([0.0, 1.0])}
    loss = {"loss": RowScores([4.0, 6.0], [2, 2])}
    summary = summarize({"base": loss | text, "sft": loss | text, "gguf": text}, seed=0)
    pairs = [(pair["a"], pair["b"], pair["metric"]) for pair in summary["paired"]]
    assert pairs == [
        ("base", "sft", "loss"),
        ("base", "sft", "rouge_l"),
        ("base", "gguf", "rouge_l"),
        ("sft", "gguf", "rouge_l"),
    ]
    metrics = compact(summary)
    assert metrics["base"] == {"loss": 2.5, "rouge_l": 0.5}
    assert metrics["paired"]["base"]["gguf"] == {"rouge_l": [0.0, 0.0, 0.0]}
    lines = table(summary, ["loss", "rouge_l"]).splitlines()
    assert lines[0].split() == ["model", "loss", "rouge_l"]
    assert lines[1].startswith("base        2.500 [2.000, 3.000]")
    assert lines[3].split()[:2] == ["gguf", "–"]
    assert lines[4].split("  ")[:2] == ["sft − base", "+0.000 [+0.000, +0.000]"]
    assert lines[5].split()[:4] == ["gguf", "−", "sft", "–"]
