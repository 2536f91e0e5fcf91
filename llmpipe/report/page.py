"""The page: one file that needs nothing else, runs no script and asks for nothing.

Its policy (CSP) forbids everything but the one style sheet that stands in it, known by its hash,
so that text from a spec, a log or a metric could not act even if it were not escaped.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from llmpipe.graph.markup import Markup, element, join
from llmpipe.graph.render import picture
from llmpipe.graph.svg import STATUS_STYLE, STYLE, svg
from llmpipe.patterns import REPORT_MARK
from llmpipe.report.curves import charts
from llmpipe.report.facts import Facts, Run, read_facts
from llmpipe.report.parts import Section, details, lines, pairs, scroll, status_chip
from llmpipe.report.results import comparisons
from llmpipe.report.rows import row_counts
from llmpipe.report.stages import failures, lock, stage_tables
from llmpipe.report.sweeps import sweeps
from llmpipe.report.timeline import timeline
from llmpipe.runner.disk import atomic_write
from llmpipe.runner.messages import overlaid, seconds_text
from llmpipe.runner.store import Store

NAME = "report.html"


def write_report(store: Store, folder: Path, path: Path | None = None) -> Path:
    """Write the page of a run and give where it is.

    Args:
        store: where the run's artifacts are.
        folder: what the run has left.
        path: where to; into that folder by default.

    Raises:
        StoreError: the run's record cannot be used.
        OSError: the page cannot be written.
    """
    page = make_page(read_facts(store, folder))
    target = path or folder / NAME
    atomic_write(target, page, durable=False)
    return target


def make_page(facts: Facts) -> str:
    """Give the page."""
    run = facts.run
    parts = [section for section in _sections(facts) if section.content]
    title, written = f"{run.name}: {run.status}, {run.run}", f"Written by llmpipe {run.llmpipe}."
    return document(title, _header(run), parts, written)


def document(title: str, header: Markup, sections: Sequence[Section], written: str) -> str:
    """Return a whole page of sections, each linked from the top."""
    links = (element("li", element("a", part.title, href=f"#{part.id}")) for part in sections)
    head = element(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup(REPORT_MARK.decode()),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        Markup('<meta name="referrer" content="no-referrer">'),
        element("title", title),
        element("style", _style()),
    )
    body = element(
        "body",
        element("a", "To the content", href="#content", class_="skip"),
        header,
        element("nav", element("ul", *links), aria_label="Sections"),
        element("main", *(part.markup() for part in sections), id="content"),
        element("footer", written),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _sections(facts: Facts) -> list[Section]:
    failed = any(stage.status == "failed" for stage in facts.run.stages.values())
    return [
        Section("failures", "Failures" if failed else "Interrupted", failures(facts)),
        Section("graph", "Graph", _graph(facts)),
        Section("results", "Models compared", comparisons(facts)),
        Section("sweeps", "Sweeps", sweeps(facts)),
        Section("training", "Curves", charts(facts)),
        Section("data", "Rows of data", row_counts(facts)),
        Section("stages", "Stages", stage_tables(facts)),
        Section("timings", "Timings", timeline(facts)),
        Section("lock", "Lock", lock(facts)),
        Section("environment", "Environment", _environment(facts)),
    ]


def _header(run: Run) -> Markup:
    counts = Counter(stage.status for stage in run.stages.values())
    told = " · ".join(f"{count} {status}" for status, count in counts.items())
    begun = datetime.fromisoformat(run.started)
    moment = element("time", f"{begun:%Y-%m-%d %H:%M} UTC", datetime=run.started)
    parts = [
        element("p", "llmpipe run ", element("code", run.run), class_="eyebrow"),
        element("h1", run.name, " ", status_chip(run.status)),
        element("p", moment, f" · took {seconds_text(run.seconds)} · {told}", class_="lead"),
    ]
    if run.status != "done":
        words = [PurePath(run.spec).name, *overlaid(run.profiles, run.settings)]
        again = element("code", f"llmpipe run {shlex.join(words)}")
        parts.append(element("p", "What is finished is kept. Go on with ", again))
    laid = [*(f"--profile {name}" for name in run.profiles), *(f"--set {s}" for s in run.settings)]
    if laid:
        parts.append(element("p", *(join([element("code", text), " "]) for text in laid)))
    return element("header", *parts)


def _graph(facts: Facts) -> Markup:
    run = facts.run
    if not run.graph:
        return Markup("")
    statuses = {name: stage.status for name, stage in run.stages.items()}
    drawn = svg(
        picture(run.graph, statuses),
        title=f"The {len(run.graph)} stages of {run.name} and what they read from each other",
        standalone=False,
    )
    return scroll("Graph of the stages", drawn)


def _environment(facts: Facts) -> Markup:
    run = facts.run
    tools: dict[str, str] = {}
    for record in facts.records.values():
        found = record.ingredients.get("tools", {})
        tools |= {name: version for name, version in found.items() if version}
    shown: list[tuple[str, Any]] = [
        ("llmpipe", run.llmpipe),
        ("Python", run.python),
        ("spec", PurePath(run.spec).name),
        ("profiles", ", ".join(run.profiles) or "none"),
        ("--set", lines(run.settings) if run.settings else "nothing"),
        ("started", run.started),
        ("ended", run.ended),
        *sorted(tools.items()),
    ]
    resolved = element("pre", _yaml(run.document), tabindex=0)
    return join([pairs(shown), details("The spec as it was resolved", resolved)])


def _yaml(document: Any) -> str:
    import yaml

    text: str = yaml.dump(
        document, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=88
    )
    return text


@cache
def _style() -> Markup:
    text = Path(__file__).with_name("style.css").read_text("utf-8")
    return Markup(text + STYLE + STATUS_STYLE)


def _policy() -> str:
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
