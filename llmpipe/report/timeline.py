"""When each stage ran, as bars over the time of the run.

Bars are placed by percentages, so that the drawing is as wide as the window and its text stays as
large as the text around it.
"""

from __future__ import annotations

from collections.abc import Iterator

from llmpipe.graph.markup import Markup, element
from llmpipe.graph.render import point_words
from llmpipe.graph.svg import shortened
from llmpipe.report.axis import moment_text, moments
from llmpipe.report.facts import Facts, Stage
from llmpipe.runner.messages import seconds_text

ROW = 36
AXIS = 22
MAX_LETTERS = 42


def timeline(facts: Facts) -> Markup:
    """Give the bars of all stages that ran, in the order in which they began."""
    ran = [stage for stage in facts.run.stages.values() if stage.started is not None]
    ran.sort(key=lambda stage: stage.started or 0.0)
    if not ran:
        return Markup("")
    end = max([facts.run.seconds, *((s.started or 0.0) + s.seconds for s in ran)]) or 1.0
    height = AXIS + ROW * len(ran) + 4
    title = f"{len(ran)} stages over {seconds_text(end)}"
    return element(
        "svg",
        element("title", title),
        *_axis(end, height),
        *(_bar(facts, stage, i, end) for i, stage in enumerate(ran)),
        class_="timeline",
        role="img",
        width="100%",
        height=height,
    )


def _axis(end: float, height: int) -> Iterator[Markup]:
    for at in moments(end, 6):
        share = 100 * at / end
        anchor = "start" if share < 5 else "end" if share > 90 else "middle"
        x = f"{share:.3f}%"
        yield element("line", class_="grid", x1=x, x2=x, y1=AXIS - 4, y2=height)
        yield element("text", moment_text(at), class_="tick", x=x, y=12, text_anchor=anchor)


def _bar(facts: Facts, stage: Stage, row: int, end: float) -> Markup:
    begun = stage.started or 0.0
    start, width = 100 * begun / end, 100 * stage.seconds / end
    y = AXIS + row * ROW
    left = 100 - start >= start + width  # where there is more room for the text
    took = seconds_text(stage.seconds)
    point = point_words(facts.point(stage.stage))
    point = f"{point} ·" if point else ""
    return element(
        "g",
        element("title", f"{stage.stage}: {stage.status}, from {seconds_text(begun)}, took {took}"),
        element(
            "text",
            element("tspan", shortened(facts.family(stage.stage), MAX_LETTERS), class_="name"),
            f" {shortened(' '.join(filter(None, (point, took))), MAX_LETTERS)}",
            x=f"{start if left else min(100.0, start + width):.3f}%",
            y=y + 13,
            text_anchor="start" if left else "end",
        ),
        element(
            "rect",
            x=f"{min(start, 99.5):.3f}%",
            y=y + 19,
            width=f"{max(width, 0.5):.3f}%",
            height=10,
            rx=3,
        ),
        class_=stage.status,
    )
