"""Detect the compute device of this machine without importing torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from typing import Literal


@dataclass(frozen=True, slots=True)
class Device:
    """The device class of a run, and the best number format for it."""

    kind: Literal["cpu", "cuda"]
    dtype: Literal["float32", "float16", "bfloat16"]
    name: str = "cpu"
    memory: int = 0
    """Bytes of the first GPU's memory."""


@cache
def detect() -> Device:
    """Return the first visible NVIDIA GPU, or else the CPU.

    ``bfloat16`` needs compute capability 8.0 or newer; older GPUs get ``float16``.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or not shutil.which("nvidia-smi"):
        return Device("cpu", "float32")
    query = [
        "nvidia-smi",
        "--query-gpu=compute_cap,memory.total,name",
        "--format=csv,noheader,nounits",
    ]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        capability, mebibytes, name = answer.stdout.splitlines()[0].split(",", 2)
        modern, memory = float(capability) >= 8.0, int(mebibytes) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return Device("cpu", "float32")
    return Device("cuda", "bfloat16" if modern else "float16", name.strip(), memory)
