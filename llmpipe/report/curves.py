"""The curves in the stages' metrics, drawn: a list of [step, value] is one.

The points of a sweep share a drawing. The lines are stretched to the width of the window, the
text beside them is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llmpipe.graph.markup import Markup, element, join
from llmpipe.graph.render import point_words
from llmpipe.report.axis import ticks
from llmpipe.report.facts import Facts, is_number
from llmpipe.report.parts import number
from llmpipe.trend import WINDOW, trend

HEIGHT = 220
MARGIN = 10
COLOURS = 8
"""Stages that have a colour of their own; the rest share a faint one and have no legend."""
MAX_POINTS = 500
"""Points of a line that are drawn; of more, every other, third, and so on."""
FEW = 40
"""Points up to which each is marked."""

Curve = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """A curve with its name. Those of one stage have one colour; what was held out is dashed."""

    name: str
    curve: Curve
    colour: int
    held_out: bool

    @property
    def classes(self) -> str:
        """The classes of what is drawn of it."""
        colour = f"c{self.colour}" if self.colour < COLOURS else "faint"
        return f"{colour} held-out" if self.held_out else colour

    @property
    def span(self) -> str:
        """How it began and ended; single points where each is measured on all that was held out."""
        values = [value for _, value in self.curve]
        if self.held_out:
            return f"{number(values[0])} → {number(values[-1])}, first and last"
        first, last = trend(values)
        return f"{number(first)} → {number(last)}, {WINDOW}"


def charts(facts: Facts) -> Markup:
    """Give a drawing for every stage of the spec and group of its curves."""
    found: dict[tuple[str, str], list[Line]] = {}
    colours: dict[str, dict[str, int]] = {}
    for name, stage in facts.run.stages.items():
        family, point = facts.family(name), point_words(facts.point(name))
        for metric, value in stage.metrics.items():
            curve = _curve(value)
            if len(curve) > 1:
                group = metric.removeprefix("eval_")
                taken = colours.setdefault(family, {})
                colour = taken.setdefault(name, len(taken))
                title = " · ".join(filter(None, (point, metric)))
                line = Line(title, curve, colour, metric != group)
                found.setdefault((family, group), []).append(line)
    return join(_chart(f"{family}: {group}", lines) for (family, group), lines in found.items())


def _curve(value: object) -> Curve:
    """Take a metric as a curve; empty where it is none."""
    if not isinstance(value, list):
        return []
    pairs = [p for p in value if isinstance(p, list) and len(p) == 2 and all(map(is_number, p))]
    if len(pairs) < len(value) / 2:
        return []
    return [(float(x), float(y)) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]


def _chart(title: str, lines: Sequence[Line]) -> Markup:
    every = [point for line in lines for point in line.curve]
    low_x, high_x = min(x for x, _ in every), max(x for x, _ in every)
    high_x = high_x if high_x > low_x else low_x + 1
    low_y, high_y = min(y for _, y in every), max(y for _, y in every)
    pad = (high_y - low_y) * 0.06 or abs(high_y) * 0.1 or 1.0
    frame = Frame(low_x, high_x, low_y - pad, high_y + pad)
    marks = ticks(frame.low_y, frame.high_y, 4)
    labels = (
        element(
            "text", number(mark), class_="tick", x="100%", y=frame.y(mark) + 4, text_anchor="end"
        )
        for mark in marks
    )
    return element(
        "figure",
        element("figcaption", title),
        element(
            "div",
            element("svg", *labels, width="100%", height=HEIGHT + 24, aria_hidden="true"),
            element(
                "svg",
                element("title", f"{title}, {_said(lines)}"),
                *(
                    element("line", class_="grid", x1=0, x2="100%", y1=frame.y(m), y2=frame.y(m))
                    for m in marks
                ),
                *_steps(frame),
                *_drawn(lines, frame),
                role="img",
                width="100%",
                height=HEIGHT + 24,
            ),
            class_="plot",
        ),
        _legend(lines),
        class_="chart",
    )


@dataclass(frozen=True, slots=True)
class Frame:
    """The ranges that a drawing spans."""

    low_x: float
    high_x: float
    low_y: float
    high_y: float

    def x(self, value: float) -> float:
        """Give where a step stands, in percent of the width."""
        return 100 * (value - self.low_x) / (self.high_x - self.low_x)

    def y(self, value: float) -> float:
        """Give where a value stands, in pixels from the top."""
        share = (value - self.low_y) / (self.high_y - self.low_y)
        return MARGIN + (HEIGHT - 2 * MARGIN) * (1 - share)


def _steps(frame: Frame) -> Iterator[Markup]:
    for mark in ticks(frame.low_x, frame.high_x, 6):
        share = frame.x(mark)
        if 0 <= share <= 100:
            anchor = "start" if share < 4 else "end" if share > 92 else "middle"
            x = f"{share:.3f}%"
            yield element(
                "text", number(mark), class_="tick", x=x, y=HEIGHT + 14, text_anchor=anchor
            )


def _drawn(lines: Sequence[Line], frame: Frame) -> Iterator[Markup]:
    paths = []
    for line in lines:
        thinned = line.curve[:: -(-len(line.curve) // MAX_POINTS)]
        points = " ".join(f"{10 * frame.x(x):.1f},{frame.y(y):.1f}" for x, y in thinned)
        paths.append(element("polyline", points=points, class_=line.classes))
    yield element(
        "svg",
        *paths,
        width="100%",
        height=HEIGHT,
        viewBox=f"0 0 1000 {HEIGHT}",
        preserveAspectRatio="none",
    )
    for line in lines:
        if line.held_out and len(line.curve) <= FEW:
            for x, y in line.curve:
                cx = f"{frame.x(x):.3f}%"
                yield element("circle", cx=cx, cy=frame.y(y), r=3.5, class_=line.classes)


def _legend(lines: Sequence[Line]) -> Markup:
    shown = [line for line in lines if line.colour < COLOURS]
    entries = []
    for line in shown:
        stroke = element("line", x1=0, x2=22, y1=6, y2=6, class_=line.classes)
        swatch = element("svg", stroke, width=22, height=12, aria_hidden="true")
        span = element("span", line.span, class_="muted")
        entries.append(element("li", swatch, " ", line.name, " ", span))
    if len(lines) > len(shown):
        entries.append(element("li", f"and {len(lines) - len(shown)} more", class_="muted"))
    return element("ul", *entries, class_="legend")


def _said(lines: Sequence[Line]) -> str:
    return "; ".join(f"{line.name}: {line.span}" for line in lines if line.colour < COLOURS)
