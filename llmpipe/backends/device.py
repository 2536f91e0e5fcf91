"""What this machine can compute on, found without importing torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from typing import Literal


@dataclass(frozen=True, slots=True)
class Device:
    """The class of device that a run computes on, and the number format that suits it."""

    kind: Literal["cpu", "cuda"]
    dtype: Literal["float32", "float16", "bfloat16"]
    name: str = "cpu"


@cache
def detect() -> Device:
    """Find the device class: the first NVIDIA GPU that may be used, else the CPU.

    ``bfloat16`` needs compute capability 8.0 or newer; older GPUs get ``float16``.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or not shutil.which("nvidia-smi"):
        return Device("cpu", "float32")
    query = ["nvidia-smi", "--query-gpu=compute_cap,name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        capability, _, name = answer.stdout.splitlines()[0].partition(",")
        modern = float(capability) >= 8.0
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return Device("cpu", "float32")
    return Device("cuda", "bfloat16" if modern else "float16", name.strip())
