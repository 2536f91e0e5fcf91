"""Write the graph as text that other programs draw: Mermaid and Graphviz's DOT.

`outline` returns the graph as plain data, which runs keep in their record. `picture` returns what
to draw: a box for every stage at every point of a sweep, and an arrow where one stage reads from
another. `llmpipe.graph.svg` draws the same picture without another program.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmpipe.canonical import canonical_json
from llmpipe.graph.model import Binding, Graph, StageNode, axes_of
from llmpipe.graph.sources import StageOutput

Outline = Mapping[str, Mapping[str, Any]]
"""The graph as plain data: by stage its ``kind``, ``family``, ``point``, ``derived_for`` and
``needs`` (a list of ``stage``, ``output`` and ``type``)."""


@dataclass(frozen=True, slots=True)
class Box:
    """A stage as it is drawn: two lines of text. ``full`` is the text shown on hovering."""

    id: str
    title: str
    note: str
    full: str
    derived: bool = False
    status: str = ""

    @property
    def classes(self) -> str | None:
        """The CSS classes of the box."""
        return " ".join(filter(None, (self.status, "derived" if self.derived else ""))) or None


@dataclass(frozen=True, slots=True)
class Arrow:
    """An arrow: ``target`` reads from ``source``. The label says what it reads."""

    source: str
    target: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """The boxes and arrows to draw. Each box comes after the boxes whose arrows lead to it."""

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def outline(graph: Graph) -> dict[str, dict[str, Any]]:
    """Return the graph as plain data."""
    return {
        node.id: {
            "kind": node.kind,
            "family": node.family,
            "point": axes_of(node.point),
            "derived_for": node.derived_for,
            "needs": list(_needs(node)),
        }
        for node in graph.nodes.values()
    }


def picture(graph: Outline, statuses: Mapping[str, str] | None = None) -> Picture:
    """Return the picture of an outline, with the status of each stage where it is known."""
    found = statuses or {}
    boxes = tuple(_box(name, stage, found.get(name, "")) for name, stage in graph.items())
    arrows = tuple(
        Arrow(source, name, label)
        for name, stage in graph.items()
        for source, label in _labels(stage["needs"]).items()
        if source in graph
    )
    return Picture(boxes, arrows)


def point_words(point: Mapping[str, Any]) -> str:
    """Return a point in brief: the last step of each axis, and its value."""
    return ", ".join(
        f"{axis.rpartition('.')[2]}={value if isinstance(value, str) else canonical_json(value)}"
        for axis, value in sorted(point.items())
    )


def mermaid(drawn: Picture) -> str:
    """Return the picture as a Mermaid flowchart."""
    names = _names(drawn)
    lines = ["flowchart TD"]
    for box in drawn.boxes:
        words = f'"{_mermaid(box.title)}<br><small>{_mermaid(box.note)}</small>"'
        lines.append(f"  {names[box.id]}[{words}]{':::derived' if box.derived else ''}")
    for arrow in drawn.arrows:
        label = f'|"{_mermaid(arrow.label)}"|' if arrow.label else ""
        lines.append(f"  {names[arrow.source]} -->{label} {names[arrow.target]}")
    if any(box.derived for box in drawn.boxes):
        lines.append("  classDef derived stroke-dasharray: 5 4")
    return "\n".join(lines) + "\n"


def dot(drawn: Picture) -> str:
    """Return the picture in Graphviz's language."""
    lines = [
        "digraph {",
        '  node [shape=box, style=rounded, fontname="Helvetica"]',
        '  edge [fontname="Helvetica", fontsize=10]',
    ]
    names = _names(drawn)
    for box in drawn.boxes:
        style = ', style="rounded,dashed"' if box.derived else ""
        lines.append(f'  {names[box.id]} [label="{_dot(box.title)}\\n{_dot(box.note)}"{style}]')
    for arrow in drawn.arrows:
        label = f' [label="{_dot(arrow.label)}"]' if arrow.label else ""
        lines.append(f"  {names[arrow.source]} -> {names[arrow.target]}{label}")
    return "\n".join([*lines, "}"]) + "\n"


def _names(drawn: Picture) -> dict[str, str]:
    """Return a number for each box, because ids of derived stages and sweeps hold any character."""
    return {box.id: f"n{i}" for i, box in enumerate(drawn.boxes)}


def _mermaid(text: str) -> str:
    """Escape every character that Mermaid, or the HTML that it writes, could interpret."""
    plain = (
        letter if letter.isalnum() or letter in " _-=,.:·" else f"#{ord(letter)};"
        for letter in text
    )
    return "".join(plain)


def _dot(text: str) -> str:
    """Escape text for a quoted label, where Graphviz interprets escapes and HTML entities."""
    escapes = {"\\": "\\\\", '"': '\\"', "&": "&amp;", "\n": "\\n", "\r": " ", "\0": "\ufffd"}
    return "".join(escapes.get(letter, letter) for letter in text)


def _box(name: str, stage: Mapping[str, Any], status: str) -> Box:
    kind, point, derived = stage["kind"], stage["point"], stage["derived_for"]
    title = stage["family"] if point else name
    note = f"for {derived}" if derived else kind
    if point:
        note = point_words(point)
    ended = f", {status}" if status else ""
    return Box(name, title, note, f"{name} ({kind}{ended})", derived is not None, status)


def _labels(needs: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return what is read from each stage: the type, and the output if its name differs."""
    found: dict[str, list[str]] = {}
    for need in needs:
        output, type_ = need["output"], need["type"]
        words = type_ if output == type_ else f"{type_} {output}"
        labels = found.setdefault(need["stage"], [])
        if words not in labels:
            labels.append(words)
    return {stage: ", ".join(labels) for stage, labels in found.items()}


def _needs(node: StageNode) -> Iterator[dict[str, str]]:
    seen = set()
    for binding in node.bindings.values():
        current: Binding | None = binding
        while current is not None:
            source = current.source
            if isinstance(source, StageOutput) and source not in seen:
                seen.add(source)
                yield {"stage": source.stage, "output": source.output, "type": current.type}
            current = current.base
