"""Models compared on the same rows: metrics with intervals, and differences to the first model.

What a stage compares is recognized by shape: metrics by model, and under ``paired`` the differences
with their intervals. The interval of each metric comes from the metrics file, if the store still
has it.
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
    "reward": False,
    "kl": True,
    "same_top": False,
}
"""Whether lower is better, for the metrics where that is known. Others are not judged."""

Metrics = dict[str, dict[str, float]]
"""Metrics by model and name."""
Paired = dict[str, dict[str, dict[str, list[float]]]]
"""The difference and the ends of its interval, by model, by the other model, by metric."""
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Cell:
    """A metric of a model, and how it differs from the first model's."""

    value: float | None
    span: Span | None
    scale: Span
    difference: str = ""
    verdict: str = ""

    def place(self, value: float) -> str:
        """Return the place of a value on the scale that all models of the table share."""
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
        _comparison(facts, stage, compared)
        for stage in facts.run.stages.values()
        if (compared := by_model(stage.metrics))
        and (len(compared) > 1 or not facts.point(stage.stage))  # else the sweep's table shows it
    ]
    if not found:
        return NOTHING
    return render("results.html", comparisons=found, lower_is_better=LOWER_IS_BETTER)


def by_model(metrics: Mapping[str, Any]) -> Metrics:
    """Return metrics by model and name, or nothing if they have another shape."""
    models = {name: value for name, value in metrics.items() if name != "paired"}
    for found in models.values():
        if not isinstance(found, dict) or not all(map(is_number, found.values())):
            return {}
        if "paired" not in metrics and not found.keys() & LOWER_IS_BETTER.keys():
            return {}
    return models


def _comparison(facts: Facts, stage: Stage, compared: Metrics) -> Comparison:
    first = next(iter(compared))
    metrics = list(dict.fromkeys(metric for model in compared.values() for metric in model))
    over = _paired(stage.metrics).get(first, {})
    spans, rows = _intervals(facts, stage)
    scales = {metric: _scale(compared, spans, metric) for metric in metrics}
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
        for model, found in compared.items()
    }
    note = f"{rows} rows, 95 % intervals" if rows else "95 % intervals" if over else ""
    return Comparison(stage.stage, note, first, metrics, models)


def _paired(metrics: Mapping[str, Any]) -> Paired:
    """Return the paired differences, or none if the field has another meaning here."""
    try:
        return msgspec.convert(metrics.get("paired", {}), Paired)
    except msgspec.ValidationError:
        return {}


def _difference(metric: str, found: list[float] | None) -> tuple[str, str]:
    """Return the difference to the first model, and the verdict of its interval."""
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


def _scale(compared: Metrics, spans: Mapping[tuple[str, str], Span], metric: str) -> Span:
    values = [found[metric] for found in compared.values() if metric in found]
    for model in compared:
        values += spans.get((model, metric), ())
    return min(values), max(values)


def _intervals(facts: Facts, stage: Stage) -> tuple[dict[tuple[str, str], Span], int | None]:
    """Read each metric's interval, and the number of rows, from the metrics file."""
    record = facts.records.get(stage.stage)
    if record is None or "metrics" not in record.outputs:
        return {}, None
    try:
        summary = json.loads(facts.store.output_path(record.outputs["metrics"]).read_bytes())
        measured = [
            (model, metric, value)
            for model, metrics in summary["models"].items()
            for metric, value in metrics.items()
            if isinstance(value, dict)  # the size of a GGUF has no interval
        ]
        spans = {(m, n): (float(f["low"]), float(f["high"])) for m, n, f in measured}
        return spans, max(int(value["n"]) for *_, value in measured)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, None  # freed, or of another kind of stage
