"""How a run and its stages ended, as data and as the record ``run.json``."""

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
    """How a stage of a run ended. ``status`` is cached, done, failed, interrupted, blocked (what
    it needs failed) or skipped (not asked for)."""

    id: str
    kind: str
    status: str
    key: str | None = None
    seconds: float = 0.0
    causes: list[dict[str, Any]] = field(default_factory=list)
    record: KeyRecord | None = None
    error: dict[str, Any] | None = None
    started: float | None = None
    """Seconds after the run's start at which its worker began; None where none did."""
    memory: int | None = None
    """Bytes that its processes held at the most, looked at once a second; None where unknown."""
    kept: bool = False
    """Whether what it made last counted as fresh, whatever its causes say has changed."""

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
        """What the command ends with."""
        return {"done": 0, "failed": 1, "interrupted": 130}[self.status]


def new_run_id(begun: datetime) -> str:
    """Name a run so that names sort as the runs began: second, milliseconds in hex, chance."""
    thousandth = begun.microsecond // 1000
    return f"{begun:%Y%m%d-%H%M%S}-{thousandth:03x}{secrets.token_hex(2)[:3]}"


def content(
    graph: Graph, settings: Collection[str], outcomes: Iterable[StageOutcome]
) -> dict[str, Any]:
    """Return what the record of a run says of the spec and of each stage."""
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
    """Write ``run.json`` into a run's folder: what was run, with what, and what came of it."""
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
