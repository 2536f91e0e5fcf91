"""Ask a subprocess what a training step holds, and remember its answers.

The subprocess (`llmpipe.estimate.worker`) imports Axolotl, which takes seconds; so an answer is
kept on disk under the settings, the model's configuration and the versions of the libraries.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl.answering import AnsweringChild, NoAnswerError, keep_answer
from llmpipe.estimate.model_config import ModelConfig

ASK_VERSION = 4
"""Part of the cache key. Raise it if the subprocess would answer differently."""

LIBRARIES = ("axolotl", "torch", "transformers", "peft", "bitsandbytes", "accelerate")

_CHILD = AnsweringChild(
    "llmpipe.estimate.worker",
    {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},  # nothing is computed
)

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
        keep_answer(file, answer)
    return answer


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _ask_child(question: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = _CHILD.ask(question)
    except NoAnswerError as error:
        last = (str(error).splitlines() or ["it ended"])[-1]
        return {"error": f"the step could not be run on fake tensors: {last}"}
    return answer
