"""The view of a run on a terminal. Rich redraws the running stages below those that have ended.

Each running stage has its progress, its elapsed and remaining time, the memory of its processes and
the last line of its log. GPUs are listed below, if there are any.
"""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from llmpipe.runner.events import Event
from llmpipe.runner.executors.usage import gpu_usage
from llmpipe.runner.messages import event_text, progress_text, size_text
from llmpipe.terminal import guarded, unguarded

NARROW = 100
"""Terminal width in columns below which bars and memory are left out."""


class LiveView:
    """Shows events on standard error. NO_COLOR turns colors off."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(file=unguarded(sys.stderr), highlight=False)
        self._progress = Progress(
            *_columns(wide=self._console.width >= NARROW),
            console=self._console,
            transient=True,
            expand=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._gpus: TaskID | None = None
        self._progress.start()

    def __call__(self, event: Event) -> None:
        kind, stage = event["event"], event.get("stage", "")
        if kind == "stage-started":
            self._tasks[stage] = self._progress.add_task(
                guarded(stage), total=None, done="", memory="", line=""
            )
        if kind in ("stage-ended", "stage-retry") and stage in self._tasks:
            self._progress.remove_task(self._tasks.pop(stage))
        if stage in self._tasks:
            self._update(self._tasks[stage], event)
        text = event_text(event)
        if text:
            self._console.print(guarded(text), markup=False)

    def _update(self, task: TaskID, event: Event) -> None:
        kind = event["event"]
        if kind == "progress":
            done, total = event["done"], event["total"]
            self._progress.update(
                task, completed=done, total=total, done=guarded(progress_text(event))
            )
        elif kind == "log":
            self._progress.update(task, line=guarded(event["line"].strip()))
        elif kind == "usage":
            self._progress.update(task, memory=size_text(event["memory"]))
            self._show_gpus(gpu_usage())

    def _show_gpus(self, gpus: list[dict[str, Any]]) -> None:
        if not gpus:
            return
        if self._gpus is None:
            self._gpus = self._progress.add_task("GPU", total=None, done="", memory="", line="")
        used = (
            f"{gpu['id']}: {gpu['load']} %, {size_text(gpu['used'])} of {size_text(gpu['total'])}"
            for gpu in gpus
        )
        self._progress.update(self._gpus, line="; ".join(used))

    def close(self) -> None:
        """Stop redrawing and restore the terminal."""
        self._progress.stop()


def _columns(*, wide: bool) -> list[Any]:
    """Return the columns for a running stage; the log line takes the remaining width."""
    last = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False, style="bold"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[done]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[memory]}", markup=False),
        TextColumn("{task.fields[line]}", markup=False, style="dim", table_column=last),
    ]
    return columns if wide else [*columns[:2], *columns[3:6], columns[7]]
