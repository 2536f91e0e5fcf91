"""What a run prints: a live view on a terminal, plain lines elsewhere, or failures only.

All of it goes to standard error, so that standard output stays free for ``--json``.
"""

from __future__ import annotations

import sys
import time
from typing import Protocol

from llmpipe.runner.events import Event
from llmpipe.runner.messages import event_text, failure_text, progress_text

PLAIN_INTERVAL = 15.0
"""Seconds between two progress lines of a stage if the output cannot be redrawn."""


class View(Protocol):
    """Shows the events of a run."""

    def __call__(self, event: Event) -> None:
        """Show one event."""

    def close(self) -> None:
        """Restore the terminal."""


def make_view(*, quiet: bool = False, plain: bool = False) -> View:
    """Return the requested view, or the one that suits standard error."""
    if quiet:
        return QuietView()
    if plain or not sys.stderr.isatty():
        return PlainView()
    from llmpipe.runner.live import LiveView

    return LiveView()


class QuietView:
    """Shows failures, and warnings about processes that may never end by themselves."""

    def __call__(self, event: Event) -> None:
        if event["event"] == "stage-ended" and event["error"]:
            _say(failure_text(event))
        elif event["event"] == "waiting" and event["owner"].get("orphaned"):
            _say(str(event_text(event)))

    def close(self) -> None:
        """Do nothing: nothing is open."""


class PlainView:
    """Prints one line per change, and progress at intervals; for logs and pipes."""

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
        """Do nothing: nothing is open."""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
