"""Process groups: stop everything that a worker started, and know a process from its namesake."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

GRACE = ((signal.SIGINT, 2.0), (signal.SIGTERM, 1.5), (signal.SIGKILL, 1.0))
"""How a group is stopped: each signal, and the seconds it is given; under 5 s in all."""


def stop_group(process: subprocess.Popen[Any]) -> None:
    """Stop a session leader and every process of its group, gently first."""
    for number, seconds in GRACE:
        _signal_group(process.pid, number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            process.poll()
            if not group_alive(process.pid):
                return
            time.sleep(0.02)


def reap_group(process: subprocess.Popen[Any]) -> None:
    """Kill what a finished leader left behind in its group."""
    _signal_group(process.pid, signal.SIGKILL)


def group_alive(group: int) -> bool:
    """Tell whether a process group still has a member that is no zombie."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return any(_group_of(stat) == group and _state_of(stat) != "Z" for stat in _all_stats())


def identity(pid: int | None = None) -> dict[str, Any]:
    """Give what tells a process from a later one with the same number: pid, start time, boot."""
    pid = os.getpid() if pid is None else pid
    return {"pid": pid, "start": _start_of(pid), "boot": _boot()}


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _all_stats() -> list[list[str]]:
    stats = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            stat = _stat(int(entry.name))
            if stat:
                stats.append(stat)
    return stats


def _stat(pid: int) -> list[str]:
    """Give the fields of /proc/PID/stat after the command's name: state, parent, group, …"""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _state_of(stat: list[str]) -> str:
    return stat[0]


def _group_of(stat: list[str]) -> int:
    return int(stat[2])


def _start_of(pid: int) -> str:
    stat = _stat(pid)
    return stat[19] if len(stat) > 19 else ""


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
