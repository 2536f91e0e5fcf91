"""Models compared on the same rows: figures with intervals, and what each has over the first.

Metrics are read by their shape: figures by model and metric, and under ``paired`` the differences
with their intervals. Where the store still has the file of figures, each figure's own interval is
shown, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from llmpipe.graph.markup import Markup, element, join
from llmpipe.report.facts import Facts, Stage, is_number
from llmpipe.report.parts import table

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


def comparisons(facts: Facts) -> Markup:
    """Give a table for every stage that compares models."""
    return join(
        _comparison(facts, stage, figures)
        for stage in facts.run.stages.values()
        if (figures := by_model(stage.metrics))
        and (len(figures) > 1 or not facts.point(stage.stage))  # else the sweep's table has it
    )


def by_model(metrics: Mapping[str, Any]) -> Figures:
    """Take metrics as figures by model and metric; empty where they are none."""
    models = {name: value for name, value in metrics.items() if name != "paired"}
    for figures in models.values():
        if not isinstance(figures, dict) or not all(map(is_number, figures.values())):
            return {}
        if "paired" not in metrics and not figures.keys() & LOWER_IS_BETTER.keys():
            return {}
    return models


def _comparison(facts: Facts, stage: Stage, figures: Figures) -> Markup:
    first = next(iter(figures))
    metrics = list(dict.fromkeys(metric for model in figures.values() for metric in model))
    over = _paired(stage.metrics).get(first, {})
    spans, rows = _intervals(facts, stage)
    scales = {metric: _scale(figures, spans, metric) for metric in metrics}
    body = [
        [
            model,
            *(
                join(
                    [
                        _cell(found.get(metric), spans.get((model, metric)), scales[metric]),
                        _difference(metric, over.get(model, {}).get(metric), first),
                    ]
                )
                for metric in metrics
            ),
        ]
        for model, found in figures.items()
    ]
    heads = ["model", *(join([metric, _direction(metric)]) for metric in metrics)]
    told = f"{rows} rows, 95 % intervals" if rows else "95 % intervals" if over else ""
    caption = element("h3", stage.stage, " ", element("span", told, class_="muted"))
    return element(
        "div", caption, table(f"Figures of {stage.stage}", heads, body), class_="results"
    )


def _paired(metrics: Mapping[str, Any]) -> Paired:
    """Take the paired differences; none where another kind of stage means something else by it."""
    try:
        return msgspec.convert(metrics.get("paired", {}), Paired)
    except msgspec.ValidationError:
        return {}


def _direction(metric: str) -> Markup:
    if metric not in LOWER_IS_BETTER:
        return Markup("")
    better = "lower is better" if LOWER_IS_BETTER[metric] else "higher is better"
    return element("span", f" {better}", class_="muted direction")


def _cell(value: float | None, span: Span | None, scale: Span) -> Markup:
    if value is None:
        return element("span", "–", class_="muted")
    parts = [element("span", f"{value:.3f}".replace("-", "−"), class_="figure")]
    if span:
        parts.append(element("span", f" {_between(*span)}", class_="muted"))
        parts.append(_range(value, span, scale))
    return join(parts)


def _range(value: float, span: Span, scale: Span) -> Markup:
    """Draw a figure and its interval on the scale that all models of the table share."""
    low, high = scale

    def at(x: float) -> str:
        return f"{3 + 94 * (x - low) / ((high - low) or 1):.2f}%"

    return element(
        "svg",
        element("line", class_="rail", x1="3%", x2="97%", y1=6, y2=6),
        element("line", class_="span", x1=at(span[0]), x2=at(span[1]), y1=6, y2=6),
        element("circle", cx=at(value), cy=6, r=4),
        class_="range",
        width="100%",
        height=12,
        aria_hidden="true",
    )


def _difference(metric: str, found: list[float] | None, first: str) -> Markup:
    """Say how a model differs from the first, and whether the interval leaves that open."""
    if not found or len(found) != 3:
        return Markup("")
    difference, low, high = found
    kind = "no clear difference"
    if low > 0 or high < 0:
        lower = LOWER_IS_BETTER.get(metric)
        kind = "different" if lower is None else "better" if (difference < 0) == lower else "worse"
    shown = f"{difference:+.3f} {_between(low, high, signed=True)}".replace("-", "−")
    return element(
        "div",
        element("span", kind, class_=f"verdict {kind.split()[0]}"),
        f" {shown} against {first}",
        class_="difference",
    )


def _between(low: float, high: float, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"[{low:{sign}.3f}, {high:{sign}.3f}]".replace("-", "−")


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
