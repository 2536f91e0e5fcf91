"""The parts that pages are made of: sections, tables that scroll by themselves, folded details."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmpipe.graph.markup import Markup, element, escape, join
from llmpipe.graph.render import point_words


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page; one without content is left out."""

    id: str
    title: str
    content: Markup

    def markup(self) -> Markup:
        """Give it as a landmark named by its heading."""
        heading = element("h2", self.title, id=f"{self.id}-title")
        return element(
            "section", heading, self.content, id=self.id, aria_labelledby=f"{self.id}-title"
        )


def table(
    name: str,
    heads: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    numbers: Iterable[int] = (),
    marked: Iterable[int] = (),
) -> Markup:
    """Give a table that scrolls inside its own box. The first cell of a row is its header.

    Args:
        name: what the table is called, for those who do not see what stands around it.
        heads: the columns' headers.
        rows: the rows, with as many cells.
        numbers: columns to align to the right.
        marked: rows to stand out.
    """
    right, chosen = set(numbers), set(marked)

    def kind(column: int) -> str | None:
        return "number" if column in right else None

    head = (element("th", text, scope="col", class_=kind(i)) for i, text in enumerate(heads))
    body = []
    for number, row in enumerate(rows):
        first = element("th", row[0], scope="row", class_=kind(0))
        cells = (element("td", cell, class_=kind(i)) for i, cell in enumerate(row[1:], 1))
        marks = "marked" if number in chosen else None
        body.append(element("tr", first, *cells, class_=marks))
    inner = element(
        "table", element("thead", element("tr", *head)), element("tbody", *body), aria_label=name
    )
    return scroll(name, inner)


def scroll(name: str, content: Markup) -> Markup:
    """Give a box that scrolls by itself, by the keyboard too, where its content is too wide."""
    return element(
        "div", content, class_="scroll", role="region", aria_label=f"{name}, scrollable", tabindex=0
    )


def details(summary: object, *content: object, class_: str | None = None) -> Markup:
    """Give content that is folded until it is asked for."""
    return element("details", element("summary", summary), *content, class_=class_)


def pairs(items: Iterable[tuple[str, object]]) -> Markup:
    """Give names and what they stand for."""
    return element(
        "dl",
        *(element("div", element("dt", name), element("dd", value)) for name, value in items),
        class_="facts",
    )


def stage_name(family: str, point: Mapping[str, Any], name: str) -> Markup:
    """Name a stage of a run: at a point of a sweep, the stage as the spec has it and the point."""
    if not point:
        return escape(name)
    return join([family, " ", element("span", point_words(point), class_="point")])


def status_chip(status: str) -> Markup:
    """Say a status by its word, with its colour and sign."""
    return element("span", status, class_=f"chip {status}")


def code(text: object) -> Markup:
    """Give text in the face of code."""
    return element("code", text)


def lines(texts: Iterable[object]) -> Markup:
    """Give texts, each on a line of its own."""
    return join(element("div", text) for text in texts)


def number(value: float) -> str:
    """Give a figure as a person reads it."""
    if isinstance(value, int) or (value == int(value) and 100 <= abs(value) < 1e15):
        return f"{int(value):,}".replace(",", "\u202f").replace("-", "−")
    return f"{value:.4g}".replace("-", "−")
