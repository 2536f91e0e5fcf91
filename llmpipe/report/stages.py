"""Every stage: how it ended and why it ran, what went wrong, and what it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePath

from llmpipe.graph.markup import Markup, element, join
from llmpipe.report.facts import Facts, Stage
from llmpipe.report.parts import code, details, lines, number, pairs, stage_name, status_chip, table
from llmpipe.runner.messages import describe, seconds_text, size_text
from llmpipe.runner.records import KeyRecord

MAX_CAUSES = 3
"""Causes that a row shows before the rest is folded."""
MANY = 40
"""Stages that were up to date from which on they are folded."""
SHORT = 12
"""Letters of a digest that are shown."""

WHY_NOT = {"cached": "up to date", "blocked": "what it needs did not end well"}
"""Why a stage did not run."""

FOUND = "then found already made"
"""What became of a stage that began and ended as cached."""


def failures(facts: Facts) -> Markup:
    """Give a card for every stage that failed or was interrupted."""
    return join(_failure(stage) for stage in facts.run.stages.values() if stage.error is not None)


def stage_tables(facts: Facts) -> Markup:
    """Give the table of the stages; many that were up to date are folded."""
    stages = list(facts.run.stages.values())
    cached = [stage for stage in stages if stage.status == "cached"]
    if len(cached) < MANY or len(cached) == len(stages):
        return _table("Stages", stages, facts)
    others = [stage for stage in stages if stage.status != "cached"]
    folded = _table("Stages that were up to date", cached, facts)
    return join(
        [_table("Stages", others, facts), details(f"{len(cached)} stages were up to date", folded)]
    )


def lock(facts: Facts) -> Markup:
    """Give, for every stage that the store knows, its key and what stands behind it."""
    return join(
        details(
            join(
                [
                    element("strong", stage_name(facts.family(name), facts.point(name), name)),
                    " ",
                    code(record.key[:SHORT]),
                ]
            ),
            *_made_of(record),
        )
        for name, record in facts.records.items()
    )


def _failure(stage: Stage) -> Markup:
    error = stage.error
    assert error is not None
    parts = [
        element("h3", stage.stage, " ", status_chip(stage.status)),
        element("p", error.message, class_="message"),
    ]
    if error.hint:
        parts.append(element("p", element("strong", "Try: "), lines(error.hint.splitlines())))
    if error.tail:
        log = f" of {PurePath(error.log).name}" if error.log else ""
        shown = element("pre", "\n".join(error.tail), tabindex=0)
        parts += [element("p", f"The last lines{log}:", class_="muted"), shown]
    return element("article", *parts, class_=f"failure {stage.status}")


def _table(name: str, stages: Iterable[Stage], facts: Facts) -> Markup:
    heads = ["stage", "kind", "status", "took", "why", "result"]
    rows = [
        [
            stage_name(facts.family(stage.stage), facts.point(stage.stage), stage.stage),
            stage.kind,
            status_chip(stage.status),
            _took(stage),
            _why(stage),
            _result(stage, facts.notes.get(stage.stage, [])),
        ]
        for stage in stages
    ]
    return table(name, heads, rows, numbers=[3])


def _took(stage: Stage) -> Markup:
    """Give the time that a stage took, and the most memory that it held, where it ran."""
    if stage.started is None:
        return Markup("")
    memory = [f"{size_text(stage.memory)} of memory"] if stage.memory else []
    return lines([seconds_text(stage.seconds), *memory])


def _why(stage: Stage) -> Markup:
    told = [describe(cause) for cause in stage.causes]
    if stage.status == "cached" and told:
        told = ["kept, although:", *told] if stage.started is None else [*told, FOUND]
    if not told:
        words = "not asked for" if stage.status == "skipped" else WHY_NOT.get(stage.status, "")
        return element("span", words, class_="muted")
    if len(told) <= MAX_CAUSES + 1:
        return lines(told)
    rest = details(f"and {len(told) - MAX_CAUSES} more", lines(told[MAX_CAUSES:]))
    return join([lines(told[:MAX_CAUSES]), rest])


def _result(stage: Stage, notes: list[str]) -> Markup:
    """Give a stage's summary, what it warned of, and its figures folded."""
    parts = []
    summary = stage.summary.strip()
    if stage.error:
        parts.append(element("div", stage.error.message))
    elif "\n" in summary:
        parts.append(element("pre", summary, class_="plain"))
    elif summary:
        parts.append(element("div", summary))
    parts += [element("div", f"! {note}", class_="warning") for note in notes]
    figures = stage.figures()
    if figures and not stage.error:
        shown = pairs((name, number(value)) for name, value in figures.items())
        count = f"{len(figures)} figure{'' if len(figures) == 1 else 's'}"
        parts.append(details(count, shown))
    return join(parts)


def _made_of(record: KeyRecord) -> Iterator[Markup]:
    facts: list[tuple[str, object]] = [("key", code(record.key))]
    if record.kept_from:
        facts.append(("kept from", code(record.kept_from)))
    facts += [("made", record.created), ("took", seconds_text(record.seconds))]
    tools = record.ingredients.get("tools", {})
    facts += [("tools", ", ".join(f"{n} {v}" for n, v in tools.items() if v))] if tools else []
    yield pairs(facts)
    yield table(
        f"Outputs of {record.kind}",
        ["output", "type", "digest", "size"],
        [[name, o.type, code(o.digest), size_text(o.size)] for name, o in record.outputs.items()],
        numbers=[3],
    )
    inputs = record.ingredients.get("inputs", {})
    if inputs:
        yield table(
            f"Inputs of {record.kind}",
            ["input", "type", "digest"],
            [[port, found["type"], code(found["digest"])] for port, found in inputs.items()],
        )
