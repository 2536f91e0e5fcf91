"""Events and figures in words, as every view and command says them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmpipe.runner.events import Event
from llmpipe.runner.plan import describe

MAX_CAUSES = 3
"""Causes that a line names."""

MARKS = {
    "done": "✓",
    "cached": "=",
    "failed": "✗",
    "interrupted": "!",
    "blocked": "·",
    "skipped": "·",
}


def event_text(event: Event) -> str | None:
    """Say an event in words; None for those that are not worth a line."""
    kind = event["event"]
    if kind == "stage-started":
        causes = "; ".join(map(describe, event["causes"][:MAX_CAUSES]))
        again = f", try {event['attempt'] + 1}" if event["attempt"] else ""
        return f"▸ {event['stage']} ({event['kind']}{again}): {causes}"
    if kind == "stage-retry":
        left = f"try {event['attempt'] + 1} of {event['retries'] + 1}"
        return f"  {failure_text(event)}\n  {event['stage']}: {left} in {event['pause']:g} s"
    if kind == "warning":
        return f"  ! {event['stage']}: {event['message']}"
    if kind == "unreachable":
        return f"  ! the remote store is not used: {event['message']}"
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
    if event.get("kept"):
        line += f", kept although {'; '.join(map(describe, event['causes'][:MAX_CAUSES]))}"
    if event["error"] and status != "interrupted":
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


def overlaid(profiles: Iterable[str], settings: Iterable[str]) -> list[str]:
    """Give the arguments that lay profiles and settings over a spec."""
    over = [("--profile", name) for name in profiles] + [("--set", text) for text in settings]
    return [word for pair in over for word in pair]


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
