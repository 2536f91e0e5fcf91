"""A run in a notebook: a table that is redrawn while it goes on, and that stays when it is over."""

from __future__ import annotations

import sys
import time
from html import escape
from typing import TYPE_CHECKING, Any

from llmpipe.api.plan import html_table
from llmpipe.runner.messages import MARKS, describe, progress_text, seconds_text, size_text

if TYPE_CHECKING:
    from llmpipe.api.running import Run
    from llmpipe.runner.console import View
    from llmpipe.runner.events import Event

PAUSE = 0.25
"""Seconds between two drawings."""

HEADS = ("stage", "kind", "status", "seconds", "")


def in_notebook() -> bool:
    """Return whether a Jupyter kernel runs this process."""
    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive else None
    return hasattr(shell, "kernel")


class NotebookView:
    """Shows the events of a run in the output of a notebook's cell."""

    def __init__(self) -> None:
        from IPython.display import display

        self._rows: dict[str, list[str]] = {}
        self._begun: dict[str, float] = {}
        self._notes: list[str] = []
        self._due = 0.0
        self._handle = display(self, display_id=True)  # type: ignore[no-untyped-call]

    def __call__(self, event: Event) -> None:
        """Show one event."""
        kind, stage = event["event"], event.get("stage", "")
        if kind == "stage-started":
            causes = "; ".join(map(describe, event["causes"][:3]))
            self._begun[stage] = time.monotonic()
            self._rows[stage] = [*map(escape, (stage, event["kind"], "running", "", causes))]
        elif kind == "progress" and stage in self._rows:
            self._rows[stage][4] = _bar(event)
        elif kind == "usage" and stage in self._rows:
            self._rows[stage][2] = f"running, {size_text(event['memory'])}"
        elif kind == "stage-ended":
            self._begun.pop(stage, None)
            self._rows[stage] = ended_cells(event)
        elif kind in ("warning", "waiting", "unreachable"):
            from llmpipe.runner.messages import event_text

            self._notes.append(str(event_text(event)).strip())
        else:
            return
        self._draw(now=kind in ("stage-started", "stage-ended"))

    def close(self) -> None:
        """Draw for the last time."""
        self._draw(now=True)

    def _draw(self, *, now: bool) -> None:
        moment = time.monotonic()
        if not now and moment < self._due:
            return
        self._due = moment + PAUSE
        for stage, begun in self._begun.items():
            self._rows[stage][3] = escape(seconds_text(moment - begun))
        self._handle.update(self)

    def _repr_html_(self) -> str:
        return html_table(HEADS, list(self._rows.values()), self._notes)

    def __repr__(self) -> str:
        return "\n".join(" ".join(filter(None, row[:4])) for row in self._rows.values())


def _bar(event: Event) -> str:
    text = escape(progress_text(event))
    if not event["total"]:
        return text
    return f"<progress value='{event['done']:g}' max='{event['total']:g}'></progress> {text}"


def ended_cells(event: Event) -> list[str]:
    """Return the cells of a stage that has ended."""
    status = event["status"]
    error: dict[str, Any] | None = event["error"]
    told = error["message"] if error else event["summary"].strip()
    if error and error.get("hint"):
        told += f"\n{error['hint']}"
    seconds = seconds_text(event["seconds"]) if event["seconds"] else ""
    kind = escape(event["kind"])
    return [
        escape(event["stage"]), kind, f"{MARKS[status]} {status}", escape(seconds),
        escape(told).replace("\n", "<br>"),
    ]  # fmt: skip


def run_table(run: Run) -> str:
    """Return a run that has ended as a table."""
    rows = [ended_cells(stage.as_json()) for stage in run.stages.values()]
    notes = [repr(run), *(f"warning: {warning}" for warning in run.warnings)]
    if run.report:
        notes.append(f"report: {run.report}")
    return html_table(HEADS, rows, notes)


def make_view() -> View:
    """Return what shows a run here: a table in a notebook, else what the command line shows."""
    if in_notebook():
        return NotebookView()
    from llmpipe.runner import console

    return console.make_view()
