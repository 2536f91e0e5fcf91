"""Events and numbers as text, in the form that every view and command prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from llmpipe.runner.events import Event

MAX_CAUSES = 3
"""Number of causes that a line names."""

MARKS = {
    "done": "✓",
    "cached": "=",
    "failed": "✗",
    "interrupted": "!",
    "blocked": "·",
    "skipped": "·",
}


def describe(cause: Mapping[str, Any]) -> str:
    """Return in a few words why a stage will run."""
    kind = cause["cause"]
    if kind == "config":
        field_name = cause["field"].split(".", 2)[-1]
        return f"{field_name}: {_shown(cause['old'])} → {_shown(cause['new'])}"
    words = {
        "new": "it has not run yet",
        "forced": "forced",
    }
    if kind in words:
        return words[kind]
    if kind == "version":
        return _version_text(cause)
    if kind == "file":
        files = [f"{name} {became}" for name, became in cause.get("files", {}).items()]
        files += [f"and {cause['more']} more"] if cause.get("more") else []
        return ", ".join(files) or f"{cause['path']} changed"
    if kind == "upstream":
        return f"{cause['stage']} runs" if cause["pending"] else f"{cause['stage']} changed"
    if kind == "tool":
        return f"{cause['tool']}: {cause['old']} → {cause['new']}"
    if kind == "unresolved":
        return f"{cause['path']} has not been looked up on the hub yet"
    if kind == "damaged":
        return f"its record in the store is damaged: {cause['problem']}"
    return "its artifact is not in the store, or damaged there"


def _version_text(cause: Mapping[str, Any]) -> str:
    """Return whose version of a stage kind changed; only whole numbers have an order."""
    old, new = cause["old"], cause["new"]
    counted = isinstance(old, int) and isinstance(new, int) and old != new
    which = ("a newer" if new > old else "an older") if counted else "another"
    return f"{cause.get('package') or 'this llmpipe'} has {which} version of the stage kind"


def event_text(event: Event) -> str | None:
    """Return the text of an event, or None if it is not worth a line."""
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
        return f"  {event['stage']}: waits for {owner_text(event['owner'] or {})}"
    if kind == "stage-ended":
        return ended_text(event)
    return None


def owner_text(owner: Mapping[str, Any]) -> str:
    """Return who holds a stage, since when, and how to end a worker whose run has gone."""
    pid = owner.get("pid", "?")
    what = f"stage {owner['stage']!r}" if "stage" in owner else "it"  # early ones do not have it
    node = f" on {owner['node']}" if "node" in owner else ""
    line = f"process {pid}{node}, which is making {what}"
    if "since" in owner:
        line += f" since {_moment(owner['since'])}"
    if not owner.get("orphaned"):
        return line
    return (
        f"{line}; its run {owner['run']} was killed; its result is used if it finishes\n"
        f"    to end it: kill -- -{pid}    (or kill -9 -- -{pid})"
    )


def _moment(since: str) -> str:
    """Return when something began, and how long ago that is."""
    try:
        begun = datetime.fromisoformat(since).astimezone()
    except (ValueError, OverflowError):
        return since
    ago = (datetime.now(UTC) - begun).total_seconds()
    return f"{begun:%Y-%m-%d %H:%M:%S} ({seconds_text(max(0.0, ago))} ago)"


def ended_text(event: Event) -> str:
    """Return how a stage ended, with the summary of its result."""
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
    """Return why a stage failed: the message, the hint, the last lines of its log."""
    error: dict[str, Any] = event["error"]
    lines = [f"stage {event['stage']} failed: {error['message']}"]
    if error.get("hint"):
        lines += [f"   {line}" for line in error["hint"].splitlines()]
    if error.get("tail"):
        lines += ["  the last lines of its log:", *(f"  | {line[:200]}" for line in error["tail"])]
    if error.get("log"):
        lines.append(f"  the whole log: {error['log']}")
    return "\n".join(lines)


def closing_text(status: str, seconds: float, stages: Iterable[str], run: str) -> str:
    """Return how a run ended. ``stages`` are the statuses of its stages."""
    counts = Counter(stages).items()
    told = ", ".join(f"{count} {each}" for each, count in counts)
    return f"{status} in {seconds_text(seconds)}: {told} (run {run})"


def progress_text(event: Event) -> str:
    """Return the progress of a stage."""
    total = event["total"]
    done = f"{event['done']:g}/{total:g}" if total else f"{event['done']:g}"
    return f"{done} {event['note']}".strip()


def overlaid(profiles: Iterable[str], settings: Iterable[str]) -> list[str]:
    """Return the command line options for these profiles and settings."""
    over = [("--profile", name) for name in profiles] + [("--set", text) for text in settings]
    return [word for pair in over for word in pair]


def seconds_text(seconds: float) -> str:
    """Return a duration in readable units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def size_text(size: float) -> str:
    """Return a number of bytes in readable units."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _shown(value: Any) -> str:
    text = _flow(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _flow(value: Any) -> str:
    """Format a value in one line, as YAML; the content behind a reference is left out."""
    if isinstance(value, dict):
        if set(value) == {"input"}:
            return "a reference"
        fields = (f"{key}: {_flow(held)}" for key, held in value.items() if held is not None)
        return "{" + ", ".join(fields) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return "nothing" if value is None else str(value)
