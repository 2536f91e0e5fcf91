"""When each stage ran, as bars over the time of the run.

Bars are placed by percentages: the drawing fills the window, and its text keeps the normal size.
"""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from llmpipe.graph.render import point_words
from llmpipe.graph.svg import shortened
from llmpipe.report.axis import moments
from llmpipe.report.facts import Facts, Stage
from llmpipe.report.rendering import NOTHING, render
from llmpipe.runner.messages import seconds_text

ROW = 36
AXIS = 22
MAX_LETTERS = 42


@dataclass(frozen=True, slots=True)
class Bar:
    """The bar of a stage and its text; places and widths are in percent of the total width."""

    status: str
    title: str
    name: str
    text: str
    start: float
    width: float
    text_start: float | None
    """Where the text begins; None if it ends with the bar because there is more room before it."""
    text_end: float


def timeline(facts: Facts) -> Markup:
    """Return the bars of all stages that ran, in order of their start."""
    ran = [stage for stage in facts.run.stages.values() if stage.started is not None]
    ran.sort(key=lambda stage: stage.started or 0.0)
    if not ran:
        return NOTHING
    end = max([facts.run.seconds, *((s.started or 0.0) + s.seconds for s in ran)]) or 1.0
    return render(
        "timeline.html",
        bars=[_bar(facts, stage, end) for stage in ran],
        moments=moments(end, 6),
        end=end,
        height=AXIS + ROW * len(ran) + 4,
        axis=AXIS,
        row=ROW,
    )


def _bar(facts: Facts, stage: Stage, end: float) -> Bar:
    begun = stage.started or 0.0
    start, width = 100 * begun / end, 100 * stage.seconds / end
    took = seconds_text(stage.seconds)
    point = point_words(facts.point(stage.stage))
    return Bar(
        status=stage.status,
        title=f"{stage.stage}: {stage.status}, from {seconds_text(begun)}, took {took}",
        name=shortened(facts.family(stage.stage), MAX_LETTERS),
        text=shortened(f"{point} · {took}" if point else took, MAX_LETTERS),
        start=min(start, 99.5),
        width=max(width, 0.5),
        text_start=start if 100 - start >= start + width else None,
        text_end=min(100.0, start + width),
    )
