"""The page: one file that loads nothing else and runs no script.

Its content security policy allows only its own style sheet, by hash. Text from a spec, a log or a
metric could therefore do nothing even if it were not escaped.
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

from markupsafe import Markup

from llmpipe.graph.render import picture
from llmpipe.graph.svg import STATUS_STYLE, STYLE, svg
from llmpipe.patterns import REPORT_MARK
from llmpipe.report.curves import charts
from llmpipe.report.facts import Facts, read_facts
from llmpipe.report.rendering import NOTHING, Section, render
from llmpipe.report.results import comparisons
from llmpipe.report.rows import row_counts
from llmpipe.report.stages import failures, lock, stage_tables
from llmpipe.report.sweeps import sweeps
from llmpipe.report.timeline import timeline
from llmpipe.report.tracking import tracked_runs
from llmpipe.report.trained import trained_rows
from llmpipe.runner.disk import atomic_write
from llmpipe.runner.messages import overlaid
from llmpipe.runner.store import Store

NAME = "report.html"


def write_report(store: Store, folder: Path, path: Path | None = None) -> Path:
    """Write the page of a run; return its path.

    Args:
        store: The store with the run's artifacts.
        folder: The folder of the run.
        path: The file to write; by default, one in that folder.

    Raises:
        StoreError: The run's record cannot be used.
        OSError: The page cannot be written.
    """
    target = path or folder / NAME
    page = make_page(read_facts(store, folder), target.parent)
    atomic_write(target, page, durable=False)
    return target


def make_page(facts: Facts, folder: Path) -> str:
    """Return the page of a run; links to the store start from ``folder``."""
    run = facts.run
    counts = Counter(stage.status for stage in run.stages.values())
    again = [PurePath(run.spec).name, *overlaid(run.profiles, run.settings)]
    return document(
        "page.html",
        _sections(facts, folder),
        title=f"{run.name}: {run.status}, {run.run}",
        version=run.llmpipe,
        run=run,
        started=f"{datetime.fromisoformat(run.started):%Y-%m-%d %H:%M} UTC",
        counts=" · ".join(f"{count} {status}" for status, count in counts.items()),
        again=f"llmpipe run {shlex.join(again)}" if run.status != "done" else None,
        overlays=[*(f"--profile {p}" for p in run.profiles), *(f"--set {s}" for s in run.settings)],
    )


def document(template: str, sections: Sequence[Section], **values: Any) -> str:
    """Return a whole page with the sections that have content, each linked from the top."""
    page = render(
        template,
        mark=Markup(REPORT_MARK.decode()),
        policy=_policy(),
        style=_style(),
        sections=[section for section in sections if section.content],
        **values,
    )
    return f"{page}\n"


def _sections(facts: Facts, folder: Path) -> list[Section]:
    failed = any(stage.status == "failed" for stage in facts.run.stages.values())
    return [
        Section("failures", "Failures" if failed else "Interrupted", failures(facts)),
        Section("graph", "Graph", _graph(facts)),
        Section("results", "Models compared", comparisons(facts)),
        Section("sweeps", "Sweeps", sweeps(facts)),
        Section("training", "Curves", charts(facts)),
        Section("tracking", "Experiment tracking", tracked_runs(facts, folder)),
        Section("data", "Rows of data", row_counts(facts)),
        Section("trained", "What is trained", trained_rows(facts)),
        Section("stages", "Stages", stage_tables(facts)),
        Section("timings", "Timings", timeline(facts)),
        Section("lock", "Lock", lock(facts)),
        Section("environment", "Environment", _environment(facts)),
    ]


def _graph(facts: Facts) -> Markup:
    run = facts.run
    if not run.graph:
        return NOTHING
    statuses = {name: stage.status for name, stage in run.stages.items()}
    drawing = svg(
        picture(run.graph, statuses),
        title=f"The {len(run.graph)} stages of {run.name} and what they read from each other",
        standalone=False,
    )
    return render("graph.html", drawing=drawing)


def _environment(facts: Facts) -> Markup:
    run = facts.run
    tools: dict[str, str] = {}
    for record in facts.records.values():
        found = record.ingredients.get("tools", {})
        tools |= {name: version for name, version in found.items() if version}
    return render(
        "environment.html",
        run=run,
        spec=PurePath(run.spec).name,
        tools=sorted(tools.items()),
        document=_yaml(run.document),
    )


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
