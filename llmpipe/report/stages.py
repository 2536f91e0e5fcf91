"""The stages: how each ended, why it ran, what failed, and what it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from llmpipe.report.facts import Facts, Stage
from llmpipe.report.rendering import NOTHING, render
from llmpipe.runner.messages import describe, seconds_text, size_text

MAX_CAUSES = 3
"""Number of causes that a row shows before the rest is folded."""
MANY = 40
"""Number of cached stages from which they are folded."""
SHORT = 12
"""Characters of a digest that are shown."""

WHY_NOT = {"cached": "up to date", "blocked": "what it needs did not end well"}
"""Reasons why a stage did not run."""

FOUND = "then found already made"
"""What happened to a stage that began and turned out cached."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table, with texts for its cells."""

    stage: Stage
    took: list[str]
    why: list[str]
    idle: str
    notes: list[str]
    metrics: Mapping[str, float]


def failures(facts: Facts) -> Markup:
    """Return a card for every stage that failed or was interrupted."""
    failed = [stage for stage in facts.run.stages.values() if stage.error is not None]
    return render("failures.html", stages=failed) if failed else NOTHING


def stage_tables(facts: Facts) -> Markup:
    """Return the table of the stages; many cached ones are folded."""
    rows = [_row(stage, facts.notes.get(stage.stage, [])) for stage in facts.run.stages.values()]
    cached = [row for row in rows if row.stage.status == "cached"]
    if len(cached) < MANY or len(cached) == len(rows):
        shown, folded = rows, []
    else:
        shown, folded = [row for row in rows if row.stage.status != "cached"], cached
    return render("stages.html", facts=facts, shown=shown, folded=folded, max_causes=MAX_CAUSES)


def lock(facts: Facts) -> Markup:
    """Return the key and the ingredients of every stage that the store knows."""
    return render("lock.html", facts=facts, short=SHORT)


def _row(stage: Stage, notes: list[str]) -> Row:
    idle = "not asked for" if stage.status == "skipped" else WHY_NOT.get(stage.status, "")
    return Row(stage, _took(stage), _why(stage), idle, notes, stage.numbers())


def _took(stage: Stage) -> list[str]:
    """Return the duration of a stage and its peak memory, if it ran."""
    if stage.started is None:
        return []
    memory = [f"{size_text(stage.memory)} of memory"] if stage.memory else []
    return [seconds_text(stage.seconds), *memory]


def _why(stage: Stage) -> list[str]:
    told = [describe(cause) for cause in stage.causes]
    if stage.status == "cached" and told:
        return ["kept, although:", *told] if stage.started is None else [*told, FOUND]
    return told
