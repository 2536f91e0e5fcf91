"""The checkpoints of a training: which are whole, and which one to resume from."""

from __future__ import annotations

import json
import math
import shutil
import struct
from pathlib import Path


def last_checkpoint(output_dir: Path) -> Path | None:
    """Return the newest checkpoint to resume from; delete checkpoints torn by a crash.

    A checkpoint at the end of a training is skipped, because resuming there would add a step.
    """
    found = sorted(
        (p for p in output_dir.glob("checkpoint-*") if p.name[11:].isdigit()),
        key=lambda p: int(p.name[11:]),
        reverse=True,
    )
    for checkpoint in found:
        if not is_whole(checkpoint):
            shutil.rmtree(checkpoint)
        elif not _is_over(checkpoint):
            return checkpoint
    return None


def _is_over(checkpoint: Path) -> bool:
    """Return whether training ended at a checkpoint: all steps are done, or it stopped early."""
    state = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
    control = (state.get("stateful_callbacks") or {}).get("TrainerControl") or {}
    stopped = control.get("args", {}).get("should_training_stop", False)
    return bool(stopped or state["global_step"] >= state.get("max_steps", math.inf))


def checkpoint_step(checkpoint: Path | None) -> int:
    """Return the step of a checkpoint, or 0 for None."""
    if checkpoint is None:
        return 0
    state = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
    return int(state["global_step"])


def is_whole(checkpoint: Path) -> bool:
    """Return whether a checkpoint has its state, its optimizer and complete tensors."""
    try:
        checkpoint_step(checkpoint)
    except (OSError, ValueError, KeyError):
        return False
    tensors = list(checkpoint.glob("*.safetensors"))
    others = [checkpoint / "optimizer.pt", checkpoint / "scheduler.pt"]
    if any(checkpoint.glob("global_step*")):  # DeepSpeed keeps these by rank
        others = []
    if not all(p.is_file() and p.stat().st_size for p in others):
        return False
    return bool(tensors or not others) and all(map(has_all_bytes, tensors))


def has_all_bytes(file: Path) -> bool:
    """Return whether a safetensors file is as long as its header says."""
    with file.open("rb") as stream:
        size = stream.read(8)
        if len(size) < 8:
            return False
        length = struct.unpack("<Q", size)[0]
        if length > min(file.stat().st_size, 100_000_000):
            return False
        try:
            header = json.loads(stream.read(length))
        except ValueError:
            return False
    ends = [t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"]
    return bool(file.stat().st_size == 8 + length + max(ends, default=0))
