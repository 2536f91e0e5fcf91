"""What a person sees of a run: a live view on a terminal, plain lines elsewhere.

Everything goes to standard error, so that standard output stays free for ``--json``.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from llmpipe.runner.events import Event
from llmpipe.runner.plan import describe

if TYPE_CHECKING:
    from rich.progress import TaskID

PLAIN_INTERVAL = 15.0
"""Seconds between two progress lines of a stage where nothing can be redrawn."""

MARKS = {
    "done": "✓",
    "cached": "=",
    "failed": "✗",
    "interrupted": "!",
    "blocked": "·",
    "skipped": "·",
}


class View(Protocol):
    """Shows the events of a run."""

    def __call__(self, event: Event) -> None:
        """Show one event."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def make_view(*, quiet: bool = False) -> View:
    """Give the view that suits standard error."""
    if quiet:
        return QuietView()
    if sys.stderr.isatty():
        return LiveView()
    return PlainView()


class QuietView:
    """Shows failures only."""

    def __call__(self, event: Event) -> None:
        if event["event"] == "stage-ended" and event["error"]:
            _say(failure_text(event))

    def close(self) -> None:
        """Nothing is open."""


class PlainView:
    """One line per change, progress at intervals: for logs and pipes."""

    def __init__(self) -> None:
        self._shown: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        kind, now = event["event"], time.monotonic()
        if kind == "progress":
            if now - self._shown.get(event["stage"], 0.0) < PLAIN_INTERVAL:
                return
            self._shown[event["stage"]] = now
            _say(f"  {event['stage']}: {progress_text(event)}")
            return
        if kind == "stage-started":
            self._shown[event["stage"]] = now
        text = event_text(event)
        if text:
            _say(text)

    def close(self) -> None:
        """Nothing is open."""


class LiveView:
    """The running stages, each with progress, time left and last log line, redrawn by rich."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._progress.start()

    def __call__(self, event: Event) -> None:
        kind, stage = event["event"], event.get("stage", "")
        if kind == "stage-started":
            self._tasks[stage] = self._progress.add_task(stage, total=None, note="")
        if kind in ("stage-ended", "stage-retry") and stage in self._tasks:
            self._progress.remove_task(self._tasks.pop(stage))
        if stage in self._tasks:
            self._update(self._tasks[stage], event)
        text = event_text(event)
        if text:
            self._console.print(text, markup=False)

    def _update(self, task: TaskID, event: Event) -> None:
        if event["event"] == "progress":
            self._progress.update(
                task, completed=event["done"], total=event["total"], note=progress_text(event)
            )
        elif event["event"] == "log" and not self._progress.tasks[self._index(task)].total:
            width = max(20, self._console.width - 70)
            self._progress.update(task, note=event["line"][:width])

    def _index(self, task: TaskID) -> int:
        return self._progress.task_ids.index(task)

    def close(self) -> None:
        """Stop redrawing."""
        self._progress.stop()


def event_text(event: Event) -> str | None:
    """Say an event in words; None for those that are not worth a line."""
    kind = event["event"]
    if kind == "stage-started":
        causes = "; ".join(describe(cause) for cause in event["causes"][:3])
        again = f", try {event['attempt'] + 1}" if event["attempt"] else ""
        return f"▸ {event['stage']} ({event['kind']}{again}): {causes}"
    if kind == "stage-retry":
        left = f"try {event['attempt'] + 1} of {event['retries'] + 1}"
        return f"  {failure_text(event)}\n  {event['stage']}: {left} in {event['pause']:g} s"
    if kind == "warning":
        return f"  ! {event['stage']}: {event['message']}"
    if kind == "fetched":
        return f"  {event['stage']}: fetched from {event['remote']}"
    if kind == "waiting":
        owner = event["owner"] or {}
        return f"  {event['stage']}: waits for process {owner.get('pid', '?')}, which is making it"
    if kind == "stage-ended":
        return ended_text(event)
    return None


def ended_text(event: Event) -> str:
    """Say how a stage ended, with what is worth reading of its result."""
    status = event["status"]
    seconds = f" in {seconds_text(event['seconds'])}" if status in ("done", "failed") else ""
    line = f"{MARKS[status]} {event['stage']}: {status}{seconds}"
    if event["error"]:
        return f"{line}\n{failure_text(event)}"
    summary = event["summary"].strip()
    if status not in ("done", "cached") or not summary:
        return line
    if "\n" not in summary:
        return f"{line} — {summary}"
    return "\n".join([line, *(f"    {row}" for row in summary.splitlines())])


def failure_text(event: Event) -> str:
    """Say why a stage failed: the message, the hint, the last lines of its log."""
    error: dict[str, Any] = event["error"]
    lines = [f"stage {event['stage']} failed: {error['message']}"]
    if error.get("hint"):
        lines += [f"   {line}" for line in error["hint"].splitlines()]
    if error.get("tail"):
        lines += ["  the last lines of its log:", *(f"  | {line[:200]}" for line in error["tail"])]
    if error.get("log"):
        lines.append(f"  the whole log: {error['log']}")
    return "\n".join(lines)


def progress_text(event: Event) -> str:
    """Say how far a stage is."""
    total = event["total"]
    done = f"{event['done']:g}/{total:g}" if total else f"{event['done']:g}"
    return f"{done} {event['note']}".strip()


def seconds_text(seconds: float) -> str:
    """Give a duration as a person says it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def size_text(size: float) -> str:
    """Give a number of bytes as a person says it."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
