"""Models compared on the same rows: figures with intervals, and what each has over the first.

Metrics are read by their shape: figures by model and metric, and under ``paired`` the differences
with their intervals. Where the store still has the file of figures, each figure's own interval is
shown, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from markupsafe import Markup

from llmpipe.report.facts import Facts, Stage, is_number
from llmpipe.report.rendering import NOTHING, fixed, interval, render

LOWER_IS_BETTER: Mapping[str, bool] = {
    "loss": True,
    "rouge_l": False,
    "exact_match": False,
    "json_match": False,
}
"""The metrics whose sense is known; of others it is not said which model is better."""

Figures = dict[str, dict[str, float]]
"""Figures by model and metric."""
Paired = dict[str, dict[str, dict[str, list[float]]]]
"""By model, by the model set against it, by metric: the difference, and its interval's ends."""
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure of a model, and how it differs from the first model's."""

    value: float | None
    span: Span | None
    scale: Span
    difference: str = ""
    verdict: str = ""

    def place(self, value: float) -> str:
        """Return where a value stands on the scale that all models of the table share."""
        low, high = self.scale
        return f"{3 + 94 * (value - low) / ((high - low) or 1):.2f}%"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The models that a stage compares, with a cell for every metric."""

    stage: str
    note: str
    first: str
    metrics: list[str]
    models: dict[str, list[Cell]]


def comparisons(facts: Facts) -> Markup:
    """Return a table for every stage that compares models."""
    found = [
        _comparison(facts, stage, figures)
        for stage in facts.run.stages.values()
        if (figures := by_model(stage.metrics))
        and (len(figures) > 1 or not facts.point(stage.stage))  # else the sweep's table has it
    ]
    if not found:
        return NOTHING
    return render("results.html", comparisons=found, lower_is_better=LOWER_IS_BETTER)


def by_model(metrics: Mapping[str, Any]) -> Figures:
    """Return metrics as figures by model and metric, or nothing where they are not that."""
    models = {name: value for name, value in metrics.items() if name != "paired"}
    for figures in models.values():
        if not isinstance(figures, dict) or not all(map(is_number, figures.values())):
            return {}
        if "paired" not in metrics and not figures.keys() & LOWER_IS_BETTER.keys():
            return {}
    return models


def _comparison(facts: Facts, stage: Stage, figures: Figures) -> Comparison:
    first = next(iter(figures))
    metrics = list(dict.fromkeys(metric for model in figures.values() for metric in model))
    over = _paired(stage.metrics).get(first, {})
    spans, rows = _intervals(facts, stage)
    scales = {metric: _scale(figures, spans, metric) for metric in metrics}
    models = {
        model: [
            Cell(
                found.get(metric),
                spans.get((model, metric)),
                scales[metric],
                *_difference(metric, over.get(model, {}).get(metric)),
            )
            for metric in metrics
        ]
        for model, found in figures.items()
    }
    note = f"{rows} rows, 95 % intervals" if rows else "95 % intervals" if over else ""
    return Comparison(stage.stage, note, first, metrics, models)


def _paired(metrics: Mapping[str, Any]) -> Paired:
    """Return the paired differences, or none where another kind of stage means something else."""
    try:
        return msgspec.convert(metrics.get("paired", {}), Paired)
    except msgspec.ValidationError:
        return {}


def _difference(metric: str, found: list[float] | None) -> tuple[str, str]:
    """Return how a model differs from the first, and whether the interval leaves that open."""
    if not found or len(found) != 3:
        return "", ""
    difference, low, high = found
    verdict = "no clear difference"
    if low > 0 or high < 0:
        lower = LOWER_IS_BETTER.get(metric)
        verdict = (
            "different" if lower is None else "better" if (difference < 0) == lower else "worse"
        )
    return f"{fixed(difference, '+')} {interval((low, high), '+')}", verdict


def _scale(figures: Figures, spans: Mapping[tuple[str, str], Span], metric: str) -> Span:
    values = [found[metric] for found in figures.values() if metric in found]
    for model in figures:
        values += spans.get((model, metric), ())
    return min(values), max(values)


def _intervals(facts: Facts, stage: Stage) -> tuple[dict[tuple[str, str], Span], int | None]:
    """Read each figure's interval and the number of rows from the file of figures."""
    record = facts.records.get(stage.stage)
    if record is None or "metrics" not in record.outputs:
        return {}, None
    try:
        summary = json.loads(facts.store.output_path(record.outputs["metrics"]).read_bytes())
        figures = [
            (model, metric, figure)
            for model, metrics in summary["models"].items()
            for metric, figure in metrics.items()
        ]
        spans = {(m, n): (float(f["low"]), float(f["high"])) for m, n, f in figures}
        return spans, max(int(figure["n"]) for *_, figure in figures)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, None  # freed, or of another kind of stage
