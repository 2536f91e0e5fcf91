"""Sweeps: a row for every point with the figures of all that was made at it; the choice marked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from llmpipe.canonical import canonical_json
from llmpipe.graph.markup import Markup, element, join
from llmpipe.report.facts import Facts, Stage, is_number
from llmpipe.report.parts import number, status_chip, table


@dataclass(slots=True)
class Point:
    """A point: its axes, and what was made at it."""

    axes: dict[str, Any]
    figures: dict[str, float] = field(default_factory=dict)
    statuses: list[str] = field(default_factory=list)

    def status(self) -> str:
        """Give the worst of its stages' statuses."""
        order = ["failed", "interrupted", "blocked", "done", "skipped", "cached"]
        return min(self.statuses, key=order.index)


def sweeps(facts: Facts) -> Markup:
    """Give a table for every set of axes."""
    found: dict[tuple[str, ...], dict[str, Point]] = {}
    for name, stage in facts.run.stages.items():
        axes = facts.point(name)
        if axes:
            points = found.setdefault(tuple(sorted(axes)), {})
            point = points.setdefault(name.partition("@")[2], Point(axes))
            point.statuses.append(stage.status)
            point.figures |= _figures(facts.family(name), stage)
    choices = list(_choices(facts))
    return join(_sweep(axes, points, choices) for axes, points in found.items())


def _figures(family: str, stage: Stage) -> dict[str, float]:
    found = stage.figures()
    return {
        f"{family}.{name}": value for name, value in found.items() if not name.startswith("paired.")
    }


def _choices(facts: Facts) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give what stages have chosen from points: metrics with a ``point`` and all ``points``."""
    for name, stage in facts.run.stages.items():
        choice = stage.metrics
        if isinstance(choice.get("points"), dict) and isinstance(choice.get("point"), str):
            yield name, choice


def _sweep(
    axes: tuple[str, ...], points: dict[str, Point], choices: list[tuple[str, dict[str, Any]]]
) -> Markup:
    mine = [(name, choice) for name, choice in choices if choice["point"] in points]
    for _, choice in mine:
        for name, figure in choice["points"].items():
            if name in points and is_number(figure):
                points[name].figures.setdefault(str(choice.get("by", "figure")), figure)
    names = list(dict.fromkeys(name for point in points.values() for name in point.figures))
    chosen = {choice["point"]: name for name, choice in mine}
    rows = [
        [
            *(_value(point.axes[axis]) for axis in axes),
            _status(point, chosen.get(name)),
            *(number(point.figures[n]) if n in point.figures else "–" for n in names),
        ]
        for name, point in points.items()
    ]
    heads = [*axes, "status", *names]
    marked = [i for i, name in enumerate(points) if name in chosen]
    numbers = [*range(len(axes)), *range(len(axes) + 1, len(heads))]
    title = f"{len(points)} points of {', '.join(axes)}"
    content = table(title, heads, rows, numbers=numbers, marked=marked)
    return element("div", element("h3", title), content, class_="results")


def _status(point: Point, chooser: str | None) -> Markup:
    if chooser is None:
        return status_chip(point.status())
    return join(
        [status_chip(point.status()), " ", element("span", f"★ {chooser}", class_="chosen")]
    )


def _value(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value)
