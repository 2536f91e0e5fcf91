"""What a running stage gets, and what it returns."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from llmpipe.contracts.artifacts import Artifact
from llmpipe.contracts.config import StageConfig, reveal

ConfigT = TypeVar("ConfigT", bound=StageConfig)


@dataclass(frozen=True, slots=True)
class Target:
    """What a folder of ``llmpipe compile`` is for."""

    device: str | None = None
    """The device that will run it: ``cpu``, ``cuda``, or ``cuda:8`` for eight GPUs; None for this
    machine's."""
    base_model: Literal["path", "copy", "relative"] = "path"
    """How it names a local base model: by its path on this machine, by a copy inside the folder, or
    by its path relative to the folder."""
    folder: Path | None = None
    """Where the folder will be; until it is complete, it is written beside that."""


@dataclass(slots=True)
class StageContext(Generic[ConfigT]):
    """What a running stage may know and use.

    ``out`` is an empty folder that is published when `run` returns. ``work`` belongs to this key
    and survives a crash (checkpoints). ``journal`` is the store's folder of paid replies, shared by
    all keys. ``tools`` is the folder of ``llmpipe tools install``. ``resample`` means: ask again
    for what the journal holds. ``target`` is what `Compilable.compile_to` compiles for.
    """

    config: ConfigT
    stage: str
    inputs: Mapping[str, Artifact]
    out: Path
    work: Path
    journal: Path
    tools: Path
    spec_dir: Path
    threads: int
    emit: Callable[[Mapping[str, Any]], None] = lambda event: None
    resample: bool = False
    target: Target = Target()

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Report the progress of the stage; ``note`` is a short text such as ``loss 2.31``."""
        self.emit({"event": "progress", "done": done, "total": total, "note": note})

    def warn(self, message: str) -> None:
        """Warn the user of something that is not an error."""
        self.emit({"event": "warning", "message": message})

    def reveal(self, text: str) -> str:
        """See `llmpipe.contracts.reveal`."""
        return reveal(text)

    def input(self, name: str) -> Artifact:
        """Return the input called ``name``."""
        return self.inputs[name]


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a stage returns.

    ``outputs`` maps every declared output to a path under `StageContext.out`. ``metrics`` are JSON
    data. ``summary`` is a few words or a small table for users.
    """

    outputs: Mapping[str, Path]
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    summary: str = ""


def write_json(path: Path, value: Any) -> Path:
    """Write a small JSON file in a fixed layout: sorted keys, two spaces, a final newline."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
    return path
