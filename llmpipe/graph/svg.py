"""Draw a picture of the graph as SVG, readable from one stage to a thousand.

The drawing takes its colors from the page. A standalone file takes them from the system's light or
dark scheme. A sign and a color show how a stage ended. Derived stages are dashed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Template
from markupsafe import Markup

from llmpipe.graph.layout import LAYER_GAP, PER_ROW, Layout, Point, place
from llmpipe.graph.render import Arrow, Box, Picture
from llmpipe.templates import environment

TITLE_LETTER = 7.6
"""The width of a letter of a box's title, which is 12.5 px of a fixed-width face."""
NOTE_LETTER = 6.3
LABEL_LETTER = 5.6
MAX_LETTERS = 30
HEIGHT = 46.0
MARGIN = 10.0
MAX_LABELED = 120
"""Arrows beyond which none is labeled: the text on hovering still says what they carry."""

SIGNS = {
    "done": "✓", "cached": "=", "failed": "✗", "interrupted": "!", "blocked": "·", "skipped": "·",
}  # fmt: skip

STYLE = """\
.graph { color: #1f2328; --box: #fff; --edge: #848d97; --done: #1a7f37; --cached: #59636e;
  --failed: #cf222e; --interrupted: #9a6700; --blocked: #6e7781; --skipped: #6e7781; }
@media (prefers-color-scheme: dark) {
  .graph { color: #e6edf3; --box: #161b22; --edge: #6e7681; --done: #4ac26b; --cached: #9da7b3;
    --failed: #ff7b72; --interrupted: #d29922; --blocked: #8d96a0; --skipped: #8d96a0; }
}
.graph text { fill: currentColor; }
.graph .title { font: 600 12.5px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.graph .note { font: 11px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; opacity: .8; }
.graph .label { font: 10px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; text-anchor: middle;
  paint-order: stroke; stroke: var(--page, var(--box)); stroke-width: 4px; }
.graph rect { fill: var(--box); stroke: var(--edge); stroke-width: 1.3; }
.graph .derived rect { stroke-dasharray: 5 4; }
.graph .way { fill: none; stroke: var(--edge); stroke-width: 1.3; }
.graph .head { fill: var(--edge); }
.graph .sign { font: 700 13px system-ui, "DejaVu Sans", sans-serif; text-anchor: end; }
"""

STATUS_STYLE = "".join(
    f".graph .{status} rect {{ stroke: var(--{status}); }}"
    f".graph .{status} .sign {{ fill: var(--{status}); }}\n"
    for status in SIGNS
)


@dataclass(frozen=True, slots=True)
class Way:
    """The curve of an arrow, and its label."""

    curve: str
    text: str


@dataclass(frozen=True, slots=True)
class Label:
    """A label of an arrow, and its position."""

    text: str
    x: float
    y: float


def svg(picture: Picture, *, title: str, standalone: bool = True) -> Markup:
    """Return a picture as SVG.

    Args:
        picture: The picture.
        title: The name of the drawing for screen readers.
        standalone: Whether the drawing is a file of its own, which contains its style.
    """
    boxes = {box.id: box for box in picture.boxes}
    sizes = {name: (_width(box), HEIGHT) for name, box in boxes.items()}
    found = place(sizes, [(arrow.source, arrow.target) for arrow in picture.arrows])
    drawn = _template().render(
        title=title,
        style=STYLE + STATUS_STYLE if standalone else None,
        width=f"{found.width + 2 * MARGIN:.0f}",
        height=f"{found.height + 2 * MARGIN:.0f}",
        margin=MARGIN,
        ways=_ways(picture.arrows, found),
        heads=_heads(found),
        boxes=[(boxes[name], x, y, sizes[name][0]) for name, (x, y) in found.boxes.items()],
        box_height=HEIGHT,
        signs=SIGNS,
        labels=_labels(picture.arrows, found),
    )
    return Markup(drawn)


@cache
def _template() -> Template:
    return environment("llmpipe.graph", shortened=shortened).get_template("graph.svg")


def path(way: Sequence[Point]) -> str:
    """Return the points as the data of an SVG path that is vertical at each point."""
    x, y = way[0]
    steps = [f"M{x:.1f} {y:.1f}"]
    for to_x, to_y in way[1:]:
        if abs(to_x - x) < 0.5:
            steps.append(f"V{to_y:.1f}")
        else:
            middle = (y + to_y) / 2
            steps.append(f"C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}")
        x, y = to_x, to_y
    return "".join(steps)


def shortened(text: str, most: int = MAX_LETTERS) -> str:
    """Return a text without its middle where it is too long."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[head - most + 1 :]}"


def _width(box: Box) -> float:
    sign = 2 if box.status else 0
    title = (len(shortened(box.title)) + sign) * TITLE_LETTER
    return max(84.0, title + 24, len(shortened(box.note)) * NOTE_LETTER + 24)


def _ways(arrows: Sequence[Arrow], found: Layout) -> Iterator[Way]:
    """Yield the arrows' curves. Each ends a little above its box, to leave room for the head."""
    for arrow in arrows:
        *way, (x, y) = found.ways[arrow.source, arrow.target]
        told = f"{arrow.source} → {arrow.target}" + (f": {arrow.label}" if arrow.label else "")
        yield Way(path([*way, (x, y - 5)]), told)


def _heads(found: Layout) -> str:
    """Return the heads of all arrows as the data of one path; arrows that meet share a head."""
    ends = dict.fromkeys(way[-1] for way in found.ways.values())
    return "".join(f"M{x - 4:.1f} {y - 7:.1f}h8l-4 7z" for x, y in ends)


def _labels(arrows: Sequence[Arrow], found: Layout) -> Iterator[Label]:
    """Yield the labels of arrows, each on its first bend where no other label is in the way."""
    if len(arrows) > MAX_LABELED:
        return
    taken: list[tuple[float, float, float]] = []
    leaving, coming = Counter(a.source for a in arrows), Counter(a.target for a in arrows)
    for arrow in arrows:
        if max(leaving[arrow.source], coming[arrow.target]) > PER_ROW:
            continue  # a whole sweep: all its arrows have the same label
        text = shortened(arrow.label)
        half = len(text) * LABEL_LETTER / 2
        for at in (0.5, 0.64, 0.36):
            start, end = found.ways[arrow.source, arrow.target][:2]
            x, y = _on_curve(start, end, at)
            if end[1] - start[1] < LAYER_GAP - 1:
                break  # there is no room between the rows of a folded layer
            if text and not any(
                abs(x - x2) < half + half2 and abs(y - y2) < 11 for x2, y2, half2 in taken
            ):
                taken.append((x, y, half))
                yield Label(text, x, y)
                break


def _on_curve(start: Point, end: Point, t: float) -> Point:
    """Return the point at ``t`` of a curve that begins and ends vertically."""
    smooth = t * t * (3 - 2 * t)
    middle = (start[1] + end[1]) / 2
    y = start[1] * (1 - t) ** 3 + 3 * middle * t * (1 - t) + end[1] * t**3
    return start[0] + (end[0] - start[0]) * smooth, y
