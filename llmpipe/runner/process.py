"""Process groups: stop everything that a worker started, and know a process from its namesake."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

RUN_VARIABLE = "LLMPIPE_RUN"
"""The environment variable that names its run to all that a worker starts."""

GRACE = ((signal.SIGINT, 2.0), (signal.SIGTERM, 1.5), (signal.SIGKILL, 1.0))
"""How a group is stopped: each signal, and the seconds it is given; under 5 s in all."""


def stop_groups(leaders: Collection[int], hurry: Callable[[], bool] = lambda: False) -> None:
    """Stop session leaders and every process of their groups, gently first.

    ``hurry`` is asked now and then whether to be gentle no longer.
    """
    for number, seconds in GRACE:
        for leader in leaders:
            _signal_group(leader, number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not any(map(group_alive, leaders)):
                return
            if hurry() and number != signal.SIGKILL:
                break
            time.sleep(0.02)


def kill_group(leader: int) -> None:
    """Kill all that is left of a session leader's group."""
    _signal_group(leader, signal.SIGKILL)


def group_alive(group: int) -> bool:
    """Tell whether a process group still has a member that is no zombie."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return any(_group_of(stat) == group and _state_of(stat) != "Z" for _, stat in _all_stats())


def identity() -> dict[str, Any]:
    """Give what tells this process from a later one of the same number."""
    pid = os.getpid()
    run = os.environ.get(RUN_VARIABLE, "")
    return {"pid": pid, "start": _stat(pid)[19], "boot": _boot(), "run": run}


def is_alive(owner: Mapping[str, Any]) -> bool:
    """Tell whether the process of an `identity` still runs."""
    stat = _stat(owner["pid"])
    if not stat or _state_of(stat) == "Z":
        return False
    return bool(owner["boot"] == _boot() and owner["start"] == stat[19])


def kill_leftovers(owner: Mapping[str, Any]) -> bool:
    """Kill what a dead worker left running in its session; give whether there was anything.

    Only processes that carry its run's name in their environment are touched: the number of a
    session that ended long ago may have gone to somebody else's.
    """
    mark = f"{RUN_VARIABLE}={owner['run']}".encode()
    left = [
        pid
        for pid, stat in _all_stats()
        if _session_of(stat) == owner["pid"] and mark in _environment(pid)
    ]
    for pid in left:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return bool(left)


def session_stats(session: int) -> list[list[str]]:
    """Give the fields of /proc/PID/stat, from the state on, for each process of a session."""
    return [stat for _, stat in _all_stats() if _session_of(stat) == session]


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _all_stats() -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            stat = _stat(int(entry.name))
            if stat:
                yield int(entry.name), stat


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


def _session_of(stat: list[str]) -> int:
    return int(stat[3])


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
