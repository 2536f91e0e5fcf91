"""Summarize the scores of several models on the same rows: metrics, intervals and a table."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmpipe.evaluation.bootstrap import RowScores, interval, resampled_metrics
from llmpipe.evaluation.proportion import share_of_rows, wilson_interval

if TYPE_CHECKING:
    from llmpipe.evaluation.bootstrap import Resampled

Scores = Mapping[str, Mapping[str, RowScores]]
"""Scores by model and metric. A model may lack a metric; the rows are always the same."""

DIGITS = 6


def summarize(scores: Scores, seed: int) -> dict[str, Any]:
    """Return every metric with its 95 % interval, and the difference of every pair of models.

    Shares of rows have Wilson's interval; other metrics and all differences are bootstrapped. ``n``
    is the number of rows. ``difference`` is ``b`` minus ``a``, where ``a`` is listed first. Its
    interval is paired: both models are compared on the same resampled rows.
    """
    resampled = {
        model: {name: resampled_metrics(rows, seed) for name, rows in metrics.items()}
        for model, metrics in scores.items()
    }
    models = {
        model: {
            name: _rounded(
                mean=rows.value,
                **_bounds(_interval(rows, resampled[model][name])),
            )
            | {"n": len(rows.numerators)}
            for name, rows in metrics.items()
        }
        for model, metrics in scores.items()
    }
    paired = [
        {"a": a, "b": b, "metric": name}
        | _rounded(
            difference=scores[b][name].value - scores[a][name].value,
            **_bounds(interval(resampled[b][name] - resampled[a][name])),
        )
        for a, b in itertools.combinations(scores, 2)
        for name in scores[a]
        if name in scores[b]
    ]
    return {"models": models, "paired": paired}


def compact(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics without intervals, and the differences of later models to the first."""
    models = summary["models"]
    first = next(iter(models))
    means = {
        model: {
            name: metric["mean"] if isinstance(metric, dict) else metric
            for name, metric in metrics.items()
        }
        for model, metrics in models.items()
    }
    against_first = {
        pair["b"]: {
            p["metric"]: [p["difference"], p["low"], p["high"]]
            for p in summary["paired"]
            if p["a"] == first and p["b"] == pair["b"]
        }
        for pair in summary["paired"]
        if pair["a"] == first
    }
    return {**means, "paired": {first: against_first}} if against_first else means


def table(
    summary: Mapping[str, Any],
    metrics: Sequence[str],
    what: str = "model",
    pairs: Iterable[tuple[str, str]] | None = None,
) -> str:
    """Return the metrics as a text table with a line per model and intervals in brackets.

    Args:
        summary: the result of `summarize`.
        metrics: the metrics to show, as columns.
        what: header of the first column.
        pairs: models to compare, as (first, second): the lines below show second − first with
            paired intervals. Default: each model with the one listed before it.
    """
    lines = [[what, *metrics]]
    for model, values in summary["models"].items():
        lines.append([model, *(cell(values.get(name)) for name in metrics)])
    for a, b in itertools.pairwise(summary["models"]) if pairs is None else pairs:
        over = {p["metric"]: p for p in summary["paired"] if (p["a"], p["b"]) == (a, b)}
        if over:
            lines.append([f"{b} − {a}", *(cell(over.get(name)) for name in metrics)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def cell(metric: Mapping[str, float] | None) -> str:
    """Return a metric or a difference as text with its interval in brackets; a dash for None."""
    if metric is None:
        return "–"
    if "difference" in metric:
        text = "{difference:+.3f} [{low:+.3f}, {high:+.3f}]".format(**metric)
        return text.replace("-", "−")
    return "{mean:.3f} [{low:.3f}, {high:.3f}]".format(**metric)


def _interval(rows: RowScores, resampled: Resampled) -> tuple[float, float]:
    share = share_of_rows(rows)
    return wilson_interval(*share) if share else interval(resampled)


def _bounds(low_high: tuple[float, float]) -> dict[str, float]:
    return {"low": low_high[0], "high": low_high[1]}


def _rounded(**values: float) -> dict[str, float]:
    return {name: round(value, DIGITS) for name, value in values.items()}
