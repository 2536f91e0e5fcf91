"""Ask a subprocess what a training step holds, and remember its answers.

The subprocess (`llmpipe.estimate.worker`) imports Axolotl, which takes seconds; so an answer is
kept on disk under the settings, the model's configuration and the versions of the libraries.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmpipe.estimate.model_config import ModelConfig

ASK_VERSION = 4
"""Part of the cache key. Raise it if the subprocess would answer differently."""

CHILD = "llmpipe.estimate.worker"
MARK = "llmpipe-estimate "
"""The beginning of the line with the subprocess's answer."""

LIBRARIES = ("axolotl", "torch", "transformers", "peft", "bitsandbytes", "accelerate")

QUIET = {
    "AXOLOTL_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",  # nothing is computed
    "OMP_NUM_THREADS": "1",
}

SILENT = frozenset({"base_model", "datasets", "test_datasets", "output_dir", "plugins", "seed"})
"""Keys of the document that change no memory; the worker replaces or ignores them."""


def ask(
    document: Mapping[str, Any], model: ModelConfig, *, cuda: bool, memo: Path, quick: bool
) -> dict[str, Any] | None:
    """Return what a step of this document holds; see `llmpipe.estimate.worker.measure`.

    Args:
        document: what Axolotl is run with.
        model: the configuration of the base model.
        cuda: whether it trains on a GPU.
        memo: the folder of remembered answers.
        quick: return None where the answer is not remembered.

    Returns:
        The answer; ``error`` in it says why there is none.
    """
    question = json.dumps(
        {
            "version": ASK_VERSION,
            "libraries": {name: _version(name) for name in LIBRARIES},
            "document": {k: v for k, v in document.items() if k not in SILENT},
            "identity": model.identity(),
            "cuda": cuda,
        },
        sort_keys=True,
        default=str,
    )
    digest = hashlib.sha256(question.encode()).hexdigest()
    file = memo / f"estimate-{digest}.json"
    try:
        remembered: Any = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        remembered = None
    if isinstance(remembered, dict) and "peak" in remembered:
        return remembered
    if quick:
        return None
    asked = {
        "document": dict(document),
        "model": model.content,
        "gguf": None if model.gguf is None else str(model.gguf),
        "cuda": cuda,
        "capabilities": {
            "bf16": cuda,
            "fp8": False,
            "n_gpu": 1,
            "n_node": 1,
            "compute_capability": "sm_80" if cuda else None,
        },
    }
    answer = _ask_child(json.dumps(asked, default=str))
    if "error" not in answer:
        _keep(file, answer)
    return answer


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _ask_child(question: str) -> dict[str, Any]:
    for _ in range(2):  # an idle one may have ended; then start another
        child = _child()
        line = child.ask(question)
        if line is not None:
            answer: dict[str, Any] = json.loads(line)
            return answer
        child.process.wait()
        _child.cache_clear()
    return {"error": f"the step could not be run on fake tensors: {child.last_words()}"}


class _Child:
    """The subprocess, which answers many questions."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env={**os.environ, **QUIET},
        )

    def ask(self, question: str) -> str | None:
        """Return the answer as JSON, or None if the subprocess ended without one."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(question + "\n")
            stdin.flush()
        except BrokenPipeError:
            return None
        line = next((line for line in stdout if line.startswith(MARK)), None)
        return line.removeprefix(MARK) if line else None

    def last_words(self) -> str:
        """Return the last line of its error output."""
        self._errors.seek(0)
        return (self._errors.read().strip().splitlines() or ["it ended"])[-1]


@functools.cache
def _child() -> _Child:
    return _Child()


def _keep(file: Path, answer: Mapping[str, Any]) -> None:
    """Write an answer atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    draft.write_text(json.dumps(answer), "utf-8")
    draft.replace(file)
