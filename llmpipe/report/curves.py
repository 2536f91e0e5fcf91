"""Draw the curves among the stages' metrics: a list of [step, value] is a curve.

The points of a sweep share a drawing. Lines scale with the width of the window, text does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

from llmpipe.graph.render import point_words
from llmpipe.report.axis import ticks
from llmpipe.report.facts import Facts, is_number
from llmpipe.report.rendering import NOTHING, number, render
from llmpipe.trend import WINDOW, trend

HEIGHT = 220
MARGIN = 10
COLORS = 8
"""Number of stages with their own color; others share a faint one and have no legend."""
MAX_POINTS = 500
"""Points of a line that are drawn; of a longer line, every second, third, and so on."""
FEW = 40
"""Number of points up to which each is marked."""

Curve = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """A curve and its name. The curves of a stage share a color; held-out ones are dashed."""

    name: str
    curve: Curve
    color: int
    held_out: bool

    @property
    def classes(self) -> str:
        """The CSS classes of its parts."""
        color = f"c{self.color}" if self.color < COLORS else "faint"
        return f"{color} held-out" if self.held_out else color

    @property
    def marked(self) -> bool:
        """Return whether each of its points is marked."""
        return self.held_out and len(self.curve) <= FEW

    @property
    def span(self) -> str:
        """Its first and last value: means of its ends, or single points of a held-out curve."""
        values = [value for _, value in self.curve]
        if self.held_out:
            return f"{number(values[0])} → {number(values[-1])}, first and last"
        first, last = trend(values)
        return f"{number(first)} → {number(last)}, {WINDOW}"


@dataclass(frozen=True, slots=True)
class Frame:
    """The ranges of a drawing."""

    low_x: float
    high_x: float
    low_y: float
    high_y: float

    def x(self, value: float) -> float:
        """Return the place of a step, in percent of the width."""
        return 100 * (value - self.low_x) / (self.high_x - self.low_x)

    def y(self, value: float) -> float:
        """Return the place of a value, in pixels from the top."""
        share = (value - self.low_y) / (self.high_y - self.low_y)
        return MARGIN + (HEIGHT - 2 * MARGIN) * (1 - share)

    def points(self, curve: Curve) -> str:
        """Return a curve as the points of a polyline; the width is 1000."""
        thinned = curve[:: -(-len(curve) // MAX_POINTS)]
        return " ".join(f"{10 * self.x(x):.1f},{self.y(y):.1f}" for x, y in thinned)


@dataclass(frozen=True, slots=True)
class Chart:
    """The curves of a group in one drawing."""

    title: str
    lines: list[Line]
    frame: Frame

    @property
    def marks(self) -> list[float]:
        """The round values of the vertical axis."""
        return ticks(self.frame.low_y, self.frame.high_y, 4)

    @property
    def steps(self) -> list[float]:
        """The round steps of the horizontal axis."""
        steps = ticks(self.frame.low_x, self.frame.high_x, 6)
        return [step for step in steps if 0 <= self.frame.x(step) <= 100]

    @property
    def named(self) -> list[Line]:
        """The lines of the legend."""
        return [line for line in self.lines if line.color < COLORS]

    @property
    def text(self) -> str:
        """The text for screen readers."""
        return "; ".join(f"{line.name}: {line.span}" for line in self.named)


def charts(facts: Facts) -> Markup:
    """Return a drawing for every stage of the spec and group of its curves."""
    found: dict[tuple[str, str], list[Line]] = {}
    colors: dict[str, dict[str, int]] = {}
    for name, stage in facts.run.stages.items():
        family, point = facts.family(name), point_words(facts.point(name))
        for metric, value in stage.metrics.items():
            curve = _curve(value)
            if len(curve) > 1:
                group = metric.removeprefix("eval_")
                taken = colors.setdefault(family, {})
                color = taken.setdefault(name, len(taken))
                title = " · ".join(filter(None, (point, metric)))
                line = Line(title, curve, color, metric != group)
                found.setdefault((family, group), []).append(line)
    told = [_chart(f"{family}: {group}", lines) for (family, group), lines in found.items()]
    return render("curves.html", charts=told, height=HEIGHT) if told else NOTHING


def _curve(value: object) -> Curve:
    """Return a metric as a curve, or an empty list if it is not one."""
    if not isinstance(value, list):
        return []
    pairs = [p for p in value if isinstance(p, list) and len(p) == 2 and all(map(is_number, p))]
    if len(pairs) < len(value) / 2:
        return []
    return [(float(x), float(y)) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]


def _chart(title: str, lines: list[Line]) -> Chart:
    every = [point for line in lines for point in line.curve]
    low_x, high_x = min(x for x, _ in every), max(x for x, _ in every)
    high_x = high_x if high_x > low_x else low_x + 1
    low_y, high_y = min(y for _, y in every), max(y for _, y in every)
    pad = (high_y - low_y) * 0.06 or abs(high_y) * 0.1 or 1.0
    return Chart(title, lines, Frame(low_x, high_x, low_y - pad, high_y + pad))
