"""Detect the compute device of this machine without importing torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from llmpipe.errors import UsageError

_NAMED = re.compile(r"cpu|cuda(?::([1-9][0-9]{0,3}))?")


@dataclass(frozen=True, slots=True)
class Device:
    """The device class of a run, and the best number format for it."""

    kind: Literal["cpu", "cuda"]
    dtype: Literal["float32", "float16", "bfloat16"]
    name: str = "cpu"
    memory: int = 0
    """Bytes of the first GPU's memory."""
    count: int = 1
    """The number of GPUs, as far as the user named it."""


def named_device(text: str) -> Device:
    """Return the device that a user names: ``cpu``, ``cuda``, or ``cuda:8`` for eight GPUs.

    A GPU that is not in this machine is taken for one of compute capability 9.0.

    Raises:
        UsageError: The text names none.
    """
    found = _NAMED.fullmatch(text)
    if found is None:
        hint = "write cpu, cuda, or cuda:8 for a machine with eight GPUs"
        raise UsageError(f"--device: {text!r} is not a device", hint=hint)
    here = detect()
    if here.kind == text.partition(":")[0]:
        return replace(here, count=int(found[1] or 1))
    if text == "cpu":
        return Device("cpu", "float32")
    return Device("cuda", "bfloat16", "cuda", count=int(found[1] or 1))


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
