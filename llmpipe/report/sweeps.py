"""Sweeps: a row for every point, with the metrics of its stages; the chosen point is marked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from llmpipe.canonical import canonical_json
from llmpipe.report.facts import Facts, Stage, is_number
from llmpipe.report.rendering import NOTHING, render


@dataclass(slots=True)
class Point:
    """A point: its axes, its metrics, and the stage that chose it."""

    axes: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)
    statuses: list[str] = field(default_factory=list)
    chooser: str | None = None

    @property
    def status(self) -> str:
        """The worst of its stages' statuses."""
        order = ["failed", "interrupted", "blocked", "done", "skipped", "cached"]
        return min(self.statuses, key=order.index)

    def place(self) -> list[str]:
        """Return its value on every axis."""
        values = (value for _, value in sorted(self.axes.items()))
        return [value if isinstance(value, str) else canonical_json(value) for value in values]


@dataclass(frozen=True, slots=True)
class Sweep:
    """All points of a set of axes."""

    axes: list[str]
    points: list[Point]

    @property
    def title(self) -> str:
        """Its heading."""
        return f"{len(self.points)} points of {', '.join(self.axes)}"

    @property
    def metrics(self) -> list[str]:
        """The names of all metrics of its points."""
        return list(dict.fromkeys(name for point in self.points for name in point.metrics))

    @property
    def heads(self) -> list[str]:
        """The heads of its table's columns."""
        return [*self.axes, "status", *self.metrics]

    @property
    def numbers(self) -> list[int]:
        """The columns that hold numbers: all but the status."""
        return [i for i in range(len(self.heads)) if i != len(self.axes)]


def sweeps(facts: Facts) -> Markup:
    """Return a table for every set of axes."""
    found: dict[tuple[str, ...], dict[str, Point]] = {}
    for name, stage in facts.run.stages.items():
        axes = facts.point(name)
        if axes:
            points = found.setdefault(tuple(sorted(axes)), {})
            point = points.setdefault(name.partition("@")[2], Point(axes))
            point.statuses.append(stage.status)
            point.metrics |= _metrics(facts.family(name), stage)
    for name, choice in _choices(facts):
        for points in found.values():
            if choice["point"] in points:
                _choose(points, name, choice)
    told = [Sweep(list(axes), list(points.values())) for axes, points in found.items()]
    return render("sweeps.html", sweeps=told) if told else NOTHING


def _metrics(family: str, stage: Stage) -> dict[str, float]:
    found = stage.numbers()
    return {
        f"{family}.{name}": value for name, value in found.items() if not name.startswith("paired.")
    }


def _choices(facts: Facts) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the choices that stages made: metrics with a ``point`` and all ``points``."""
    for name, stage in facts.run.stages.items():
        choice = stage.metrics
        if isinstance(choice.get("points"), dict) and isinstance(choice.get("point"), str):
            yield name, choice


def _choose(points: dict[str, Point], name: str, choice: dict[str, Any]) -> None:
    """Mark the point that a stage chose, and add the metric that decided to every point."""
    points[choice["point"]].chooser = name
    for point, value in choice["points"].items():
        if point in points and is_number(value):
            points[point].metrics.setdefault(str(choice.get("by", "value")), value)
