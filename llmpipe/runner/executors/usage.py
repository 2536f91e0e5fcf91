"""Measure the memory of a stage's processes, and of the GPUs."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from llmpipe.runner.process import session_stats
from llmpipe.runner.resources import GPU_FOLDER

PAGE = os.sysconf("SC_PAGE_SIZE")

RSS = 21
"""The index of the resident pages among the fields of /proc/PID/stat after the command's name."""


def session_memory(session: int) -> int:
    """Return the bytes of memory of a stage's session, without the worker that leads it.

    Shared memory counts for each process. The worker's pages belong to its fork server.
    """
    return sum(int(stat[RSS]) for pid, stat in session_stats(session) if pid != session) * PAGE


def gpu_usage() -> list[dict[str, Any]]:
    """Return each NVIDIA GPU's id, used and total bytes of memory, and load in percent.

    Requires nvidia-ml-py, which comes with Axolotl. Without it, or without GPUs, the list is empty.
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
