"""Three ways to merge an adapter into its base; each writes a model folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.merge.training import Trained
from llmpipe.backends.axolotl.training import Launch, environment
from llmpipe.contracts import Artifact, StageContext
from llmpipe.stages.merge import Merge

Way = Callable[[Path, Trained, Path, int], Path]
"""Merges (base, trained, folder to write in, threads); returns the model's folder."""


class MergeFailedError(Exception):
    """A way of merging ended without a model; the text says why."""


def by_llmpipe(base: Path, trained: Trained, folder: Path, threads: int) -> Path:
    """Run the ``merge`` stage."""
    model = Artifact(base, "model", "base", "./base")
    adapter = Artifact(trained.adapter, "adapter", "adapter", "train", model)
    config = Merge.Config(kind="merge", adapter="train")
    context = StageContext(
        config, "merge", {"adapter": adapter}, folder, folder, folder, folder, folder, threads
    )
    return Merge.run(context).outputs["model"]


def by_peft(base: Path, trained: Trained, folder: Path, threads: int) -> Path:
    """Do what PEFT's documentation does: load, put on, ``merge_and_unload``, save."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(trained.adapter)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    merged = PeftModel.from_pretrained(model, trained.adapter).merge_and_unload()
    merged.save_pretrained(folder / "peft")
    return folder / "peft"


def by_axolotl(base: Path, trained: Trained, folder: Path, threads: int) -> Path:
    """Run ``axolotl merge-lora`` on the configuration and the output of the training.

    Raises:
        MergeFailedError: it left no model behind.
    """
    work = trained.config.parent
    env = environment(Launch(), threads=threads, work=work, offline=True)
    command = [sys.executable, "-m", "axolotl.cli.main", "merge-lora", trained.config,
               f"--lora-model-dir={trained.output}"]  # fmt: skip
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        command, cwd=work, env={**env, "PATH": path, "HOME": str(folder)},
        capture_output=True, text=True,
    )  # fmt: skip
    merged = trained.output / "merged"
    if not list(merged.glob("*.safetensors")):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise MergeFailedError(last)
    return merged


WAYS: Mapping[str, Way] = {
    "llmpipe": by_llmpipe,
    "PEFT": by_peft,
    "Axolotl": by_axolotl,
}
"""By the name of the table's column."""
