"""How much of the machine a stage uses just now: memory of its processes, and of the GPUs."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from llmpipe.runner.process import session_stats
from llmpipe.runner.resources import GPU_FOLDER

PAGE = os.sysconf("SC_PAGE_SIZE")

RSS = 21
"""Which field of /proc/PID/stat after the command's name counts the pages in memory."""


def session_memory(session: int) -> int:
    """Return the bytes of memory that a stage's session holds, without the worker that leads it.

    What its processes share counts for each. The worker's pages are its fork server's.
    """
    return sum(int(stat[RSS]) for pid, stat in session_stats(session) if pid != session) * PAGE


def gpu_usage() -> list[dict[str, Any]]:
    """Return each NVIDIA GPU's id, bytes of memory used and in all, and load in per cent.

    Needs nvidia-ml-py, which comes with Axolotl; without it, or without GPUs, the list is empty.
    """
    nvml = _nvml()
    found: list[dict[str, Any]] = []
    if nvml is None:
        return found
    for i in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(i)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            load = nvml.nvmlDeviceGetUtilizationRates(handle).gpu
        except nvml.NVMLError:
            continue
        found.append({"id": str(i), "used": memory.used, "total": memory.total, "load": load})
    return found


@cache
def _nvml() -> Any | None:
    if not GPU_FOLDER.is_dir():
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # not installed, or its library does not fit the driver
        return None
    return pynvml
