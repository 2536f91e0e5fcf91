"""The facts of a run: its record, the records of its stages, and their warnings."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from llmpipe.errors import StoreError
from llmpipe.runner.history import flatten
from llmpipe.runner.outcome import RECORD_VERSION
from llmpipe.runner.records import KeyRecord
from llmpipe.runner.store import Store

NOT_NUMBERS = frozenset({"outputs"})
"""Metrics that count outputs and say nothing about quality."""


class Error(msgspec.Struct, frozen=True):
    """Why a stage failed."""

    message: str
    hint: str | None = None
    tail: list[str] = []
    log: str | None = None


class Stage(msgspec.Struct, frozen=True):
    """A stage as ``run.json`` holds it."""

    stage: str
    kind: str
    status: str
    key: str | None
    seconds: float
    causes: list[dict[str, Any]]
    metrics: dict[str, Any]
    summary: str
    error: Error | None = None
    started: float | None = None
    memory: int | None = None

    def numbers(self) -> dict[str, float]:
        """Return the metrics that are single numbers, by dotted name; curves are left out."""
        single = {
            name: value
            for name, value in self.metrics.items()
            if not isinstance(value, list) and name not in NOT_NUMBERS
        }
        return {name: value for name, value in flatten(single) if is_number(value)}


class Run(msgspec.Struct, frozen=True):
    """A run as ``run.json`` holds it."""

    v: int
    run: str
    spec: str
    name: str
    profiles: list[str]
    settings: list[str] = msgspec.field(name="set")
    llmpipe: str
    python: str
    started: str
    ended: str
    seconds: float
    status: str
    document: Any
    stages: dict[str, Stage]
    graph: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Facts:
    """All facts of a report.

    ``records`` are those that the store still has, ``notes`` the warnings of the stages,
    ``trained_rows`` the first rows that stages of this run trained on.
    """

    run: Run
    store: Store
    records: dict[str, KeyRecord] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    trained_rows: dict[str, list[str]] = field(default_factory=dict)

    def family(self, name: str) -> str:
        """Return the stage of the spec that a stage of the run is a point of."""
        return str(self.run.graph.get(name, {}).get("family", name))

    def point(self, name: str) -> dict[str, Any]:
        """Return the point of a stage in a sweep."""
        found: dict[str, Any] = self.run.graph.get(name, {}).get("point", {})
        return found


def read_facts(store: Store, folder: Path) -> Facts:
    """Read the records of a run.

    Raises:
        StoreError: The run's record does not exist, is damaged, or comes from a newer llmpipe.
    """
    path = folder / "run.json"
    try:
        run = msgspec.json.decode(path.read_bytes(), type=Run)
    except (OSError, msgspec.MsgspecError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from None
    if run.v > RECORD_VERSION:
        raise StoreError(
            f"{path} is of version {run.v}; this llmpipe reads {RECORD_VERSION}",
            hint="use the newer llmpipe that wrote it",
        )
    found = {name: store.record(s.key) for name, s in run.stages.items() if s.key}
    records = {name: record for name, record in found.items() if record is not None}
    events = list(_events(folder / "events.jsonl"))
    rows = {event.stage: event.rows for event in events if event.event == "trained-rows"}
    return Facts(run, store, records, _warnings(events), rows)


def is_number(value: object) -> bool:
    """Return whether a value is a finite number; a boolean is not."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value)


class _Event(msgspec.Struct, frozen=True):
    event: str
    stage: str = ""
    message: str = ""
    rows: list[str] = []


def _events(path: Path) -> Iterator[_Event]:
    """Yield the events of a run that the report uses; lines cut off by a full disk are skipped."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        if b'"warning"' in line or b'"trained-rows"' in line:
            with contextlib.suppress(ValueError, RecursionError):  # msgspec's are ValueErrors
                yield msgspec.json.decode(line, type=_Event)


def _warnings(events: Iterable[_Event]) -> dict[str, list[str]]:
    """Return the warnings of each stage without duplicates."""
    notes: dict[str, list[str]] = {}
    for event in events:
        if event.event == "warning":
            told = notes.setdefault(event.stage, [])
            if event.message not in told:
                told.append(event.message)
    return notes
