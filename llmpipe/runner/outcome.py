"""How a run and its stages ended, as data and as ``run.json``."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from llmpipe import __version__
from llmpipe.runner.disk import atomic_write
from llmpipe.runner.records import KeyRecord

if TYPE_CHECKING:
    from llmpipe.graph.model import Graph

RECORD_VERSION = 1
"""The version of the layout of ``run.json``."""


@dataclass(slots=True)
class StageOutcome:
    """How a stage of a run ended.

    ``status`` is cached, done, failed, interrupted, blocked (a stage that it needs failed) or
    skipped (not requested).
    """

    id: str
    kind: str
    status: str
    key: str | None = None
    seconds: float = 0.0
    causes: list[dict[str, Any]] = field(default_factory=list)
    record: KeyRecord | None = None
    error: dict[str, Any] | None = None
    started: float | None = None
    """Seconds from the start of the run to the start of its worker; None if it had none."""
    memory: int | None = None
    """Peak memory of its processes in bytes, sampled once a second; None if unknown."""
    kept: bool = False
    """Whether its last artifacts counted as fresh although the causes name changes."""

    def as_json(self) -> dict[str, Any]:
        """Return the outcome as events and records hold it."""
        record = self.record
        return {
            "stage": self.id,
            "kind": self.kind,
            "status": self.status,
            "key": self.key,
            "seconds": self.seconds,
            "started": self.started,
            "memory": self.memory,
            "kept": self.kept,
            "causes": self.causes,
            "metrics": record.metrics if record else {},
            "summary": record.summary if record else "",
            "error": self.error,
        }


@dataclass(slots=True)
class RunOutcome:
    """How a run ended: ``status`` is done, failed or interrupted."""

    id: str
    folder: Path
    status: str
    stages: dict[str, StageOutcome]
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        return {"done": 0, "failed": 1, "interrupted": 130}[self.status]


def new_run_id(begun: datetime) -> str:
    """Return a new run id. Ids sort by start: second, milliseconds in hex, random part."""
    thousandth = begun.microsecond // 1000
    return f"{begun:%Y%m%d-%H%M%S}-{thousandth:03x}{secrets.token_hex(2)[:3]}"


def content(
    graph: Graph, settings: Collection[str], outcomes: Iterable[StageOutcome]
) -> dict[str, Any]:
    """Return what the record of a run holds about the spec and each stage."""
    from llmpipe.graph.render import outline

    spec = graph.spec
    return {
        "spec": str(spec.path),
        "name": spec.name,
        "profiles": list(spec.profiles),
        "set": list(settings),
        "document": spec.document,
        "graph": outline(graph),
        "stages": {outcome.id: outcome.as_json() for outcome in outcomes},
    }


def write_record(
    folder: Path, begun: datetime, status: str, seconds: float, content: Mapping[str, Any]
) -> None:
    """Write ``run.json`` into a run's folder: the spec, the versions, and the results."""
    record = {
        "v": RECORD_VERSION,
        "run": folder.name,
        "llmpipe": __version__,
        "python": sys.version.split()[0],
        "started": begun.isoformat(timespec="milliseconds"),
        "ended": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "seconds": seconds,
        "status": status,
        **content,
    }
    text = msgspec.json.format(msgspec.json.encode(record), indent=1).decode()
    atomic_write(folder / "run.json", text + "\n")
