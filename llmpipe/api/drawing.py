"""Draw the compiled graph of a spec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmpipe.errors import UsageError

if TYPE_CHECKING:
    from llmpipe.graph.model import Graph

FORMATS = ("mermaid", "dot", "svg")


def draw(graph: Graph, style: str) -> str:
    """Return a graph as a text of one of `FORMATS`.

    Raises:
        UsageError: the format is unknown.
    """
    from llmpipe.graph.render import dot, mermaid, outline, picture

    if style not in FORMATS:
        raise UsageError(f"unknown format {style!r}", hint=f"formats: {', '.join(FORMATS)}")
    drawn = picture(outline(graph))
    if style != "svg":
        return {"mermaid": mermaid, "dot": dot}[style](drawn)
    from llmpipe.graph.svg import svg

    return f"{svg(drawn, title=f'The stages of {graph.spec.name}')}\n"
