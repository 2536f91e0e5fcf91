"""Where rows of data went: how many came in, were kept, and dropped for what reason.

Counts are read by their names in the metrics: ``in``, ``kept`` and ``dropped`` of what was read,
``rows`` and ``rejected`` of what was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from llmpipe.graph.markup import Markup, element, join
from llmpipe.report.facts import Facts, is_number
from llmpipe.report.parts import lines, number, stage_name, table


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of one stage, kept by part and dropped by reason."""

    total: int
    kept: Mapping[str, int]
    dropped: Mapping[str, int]


def row_counts(facts: Facts) -> Markup:
    """Give the table of all stages that count rows."""
    found = {name: c for name, s in facts.run.stages.items() if (c := counts(s.metrics))}
    if not found:
        return Markup("")
    rows = [
        [
            stage_name(facts.family(name), facts.point(name), name),
            number(of.total),
            join([_bar(of), lines(_told(of.kept))]),
            lines(_told(of.dropped)) if of.dropped else element("span", "none", class_="muted"),
        ]
        for name, of in found.items()
    ]
    return table("Rows of data", ["stage", "rows in", "kept", "dropped"], rows, numbers=[1])


def counts(metrics: Mapping[str, Any]) -> Counts | None:
    """Take a stage's metrics as counts of rows; None where they are none."""
    total, kept, dropped = metrics.get("in"), metrics.get("kept"), metrics.get("dropped")
    if is_number(total) and _are_counts(kept) and _are_counts(dropped):
        return Counts(int(total or 0), kept, dropped)
    rows, rejected = metrics.get("rows"), metrics.get("rejected")
    if is_number(rows) and _are_counts(rejected):
        made = int(rows or 0)
        return Counts(made + sum(rejected.values()), {"made": made}, rejected)
    return None


def _are_counts(value: Any) -> TypeGuard[Mapping[str, int]]:
    return isinstance(value, dict) and all(map(is_number, value.values()))


def _told(counted: Mapping[str, int]) -> list[Markup]:
    return [join([element("strong", number(count)), f" {name}"]) for name, count in counted.items()]


def _bar(of: Counts) -> Markup:
    """Draw the shares of what was kept, and after them what was dropped."""
    parts = []
    at, total = 0.0, max(of.total, sum(of.kept.values()) + sum(of.dropped.values()), 1)
    shares = [(f"c{i}", count) for i, count in enumerate(of.kept.values())]
    for class_, count in [*shares, ("dropped", sum(of.dropped.values()))]:
        width = 100 * count / total
        parts.append(
            element("rect", x=f"{at:.3f}%", width=f"{width:.3f}%", height=8, class_=class_)
        )
        at += width
    return element("svg", *parts, class_="share", width="100%", height=8, aria_hidden="true")
