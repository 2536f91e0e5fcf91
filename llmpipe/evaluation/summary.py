"""From the scores of several models on the same rows to figures, intervals and a table."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmpipe.evaluation.bootstrap import RowScores, interval, resampled_figures
from llmpipe.evaluation.proportion import share_of_rows, wilson_interval

if TYPE_CHECKING:
    from llmpipe.evaluation.bootstrap import Resampled

Scores = Mapping[str, Mapping[str, RowScores]]
"""Scores by model and metric. A model may lack a metric; the rows are the same everywhere."""

DIGITS = 6


def summarise(scores: Scores, seed: int) -> dict[str, Any]:
    """Give every figure with its 95 % interval, and the difference of every two models.

    The interval of a share of rows is Wilson's; of other figures, and of every difference, it is
    bootstrapped. ``n`` counts rows.

    ``difference`` is that of ``b`` less that of ``a``, ``a`` being the model listed first; its
    interval is paired: both models are looked at on the same resampled rows.
    """
    resampled = {
        model: {name: resampled_figures(rows, seed) for name, rows in metrics.items()}
        for model, metrics in scores.items()
    }
    figures = {
        model: {
            name: _rounded(
                mean=rows.figure,
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
            difference=scores[b][name].figure - scores[a][name].figure,
            **_bounds(interval(resampled[b][name] - resampled[a][name])),
        )
        for a, b in itertools.combinations(scores, 2)
        for name in scores[a]
        if name in scores[b]
    ]
    return {"models": figures, "paired": paired}


def compact(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Give the figures without their intervals, and what each later model has over the first."""
    models = summary["models"]
    first = next(iter(models))
    figures = {
        model: {name: figure["mean"] for name, figure in metrics.items()}
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
    return {**figures, "paired": {first: against_first}} if against_first else figures


def table(
    summary: Mapping[str, Any],
    metrics: Sequence[str],
    what: str = "model",
    pairs: Iterable[tuple[str, str]] | None = None,
) -> str:
    """Give the figures as a table of text: a line for every model, intervals in brackets.

    ``what`` heads the first column. Below stands, with paired intervals, what the second of each of
    ``pairs`` has over the first; without them, every model over the one listed before it.
    """
    lines = [[what, *metrics]]
    for model, figures in summary["models"].items():
        lines.append([model, *(cell(figures.get(name)) for name in metrics)])
    for a, b in itertools.pairwise(summary["models"]) if pairs is None else pairs:
        over = {p["metric"]: p for p in summary["paired"] if (p["a"], p["b"]) == (a, b)}
        if over:
            lines.append([f"{b} − {a}", *(cell(over.get(name)) for name in metrics)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def cell(figure: Mapping[str, float] | None) -> str:
    """Give a figure or a difference as text, its interval in brackets; a dash for none."""
    if figure is None:
        return "–"
    if "difference" in figure:
        text = "{difference:+.3f} [{low:+.3f}, {high:+.3f}]".format(**figure)
        return text.replace("-", "−")
    return "{mean:.3f} [{low:.3f}, {high:.3f}]".format(**figure)


def _interval(rows: RowScores, resampled: Resampled) -> tuple[float, float]:
    share = share_of_rows(rows)
    return wilson_interval(*share) if share else interval(resampled)


def _bounds(low_high: tuple[float, float]) -> dict[str, float]:
    return {"low": low_high[0], "high": low_high[1]}


def _rounded(**figures: float) -> dict[str, float]:
    return {name: round(value, DIGITS) for name, value in figures.items()}
