"""Processes of this machine: identify them, and end what a worker started."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

RUN_VARIABLE = "LLMPIPE_RUN"
"""The environment variable with the name of the run, in all processes that a worker starts."""

WORKER_VARIABLE = "LLMPIPE_WORKER"
"""The environment variable that carries the worker, in all processes it starts, in any session."""


MACHINE_ID = Path("/etc/machine-id")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def kill_group(leader: int) -> None:
    """Kill all that remains of a session leader's process group."""
    signal_group(leader, signal.SIGKILL)


def group_alive(group: int) -> bool:
    """Return whether a process group has a member that is not a zombie."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return any(_group_of(stat) == group and _state_of(stat) != "Z" for _, stat in _all_stats())


def identity() -> dict[str, Any]:
    """Return an identity that tells this process from a later one with the same pid."""
    pid = os.getpid()
    run = os.environ.get(RUN_VARIABLE, "")
    return {"pid": pid, "start": _stat(pid)[19], "boot": _boot(), "run": run}


@cache
def host() -> str:
    """Return a short name for this machine that survives a restart.

    ``LLMPIPE_HOST`` overrides it, for machines that would have the same name.
    """
    named = os.environ.get("LLMPIPE_HOST")
    return hashlib.sha256((named or _line(MACHINE_ID) or _boot()).encode()).hexdigest()[:12]


def is_here(owner: Mapping[str, Any]) -> bool:
    """Return whether an `identity` belongs to this machine, since its last start."""
    return bool(owner["boot"] == _boot())


def is_alive(owner: Mapping[str, Any]) -> bool:
    """Return whether the process with this `identity` on this machine still runs."""
    stat = _stat(owner["pid"])
    if not stat or _state_of(stat) == "Z":
        return False
    return is_here(owner) and bool(owner["start"] == stat[19])


def kill_leftovers(owner: Mapping[str, Any]) -> bool:
    """Kill what an ended worker left running; return whether there was anything.

    Only processes with the name of the run in their environment are killed, because the session id
    may have been given to other processes.
    """
    of_run = f"{RUN_VARIABLE}={owner['run']}".encode()
    left = [
        pid
        for pid, stat in _all_stats()
        if _session_of(stat) == owner["pid"] and pid != os.getpid() and of_run in _environment(pid)
    ]
    _kill(left)
    return kill_marked(worker_mark(owner["run"], owner["pid"])) or bool(left)


def users_of(path: Path) -> Iterator[tuple[int, int]]:
    """Yield the pid and group of each process that has a file open, as far as this user can see."""
    wanted = str(path.resolve())
    for pid, stat in _all_stats():
        with contextlib.suppress(OSError):
            opened = Path(f"/proc/{pid}/fd").iterdir()
            if any(str(entry.readlink()) == wanted for entry in opened):
                yield pid, _group_of(stat)


def command_of(pid: int) -> str:
    """Return a process's command: llmpipe with its arguments, any other program by its name.

    Text after an equals sign is left out: it may be a secret.
    """
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text("utf-8", errors="replace").split("\0")
    except OSError:
        return "unknown"
    for i, word in enumerate(words):
        if word == "llmpipe" or word.endswith(("/llmpipe", "/llmpipe/__main__.py")):
            typed = (
                f"{head}=…" if sign else head for head, sign, _ in map(_parted, words[i + 1 :])
            )
            return " ".join(["llmpipe", *typed]).strip()
    return Path(words[0]).name or "unknown"


def _parted(word: str) -> tuple[str, str, str]:
    return word.partition("=")


def worker_mark(run: str, pid: int) -> str:
    """Return the mark of a worker of a run."""
    return f"{run}:{pid}"


def mark_worker() -> None:
    """Set the worker's mark in the environment of all that it will start."""
    os.environ[WORKER_VARIABLE] = worker_mark(os.environ.get(RUN_VARIABLE, ""), os.getpid())


def kill_marked(mark: str) -> bool:
    """Kill every process with a worker's mark; return whether there was any."""
    entry = f"{WORKER_VARIABLE}={mark}".encode()
    left = [pid for pid, _ in _all_stats() if entry in _environment(pid)]
    _kill(left)
    return bool(left)


def _kill(pids: Collection[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def session_stats(session: int) -> list[tuple[int, list[str]]]:
    """Return each process of a session: pid, and the fields of /proc/PID/stat from the state on."""
    return [(pid, stat) for pid, stat in _all_stats() if _session_of(stat) == session]


def signal_group(group: int, number: signal.Signals) -> None:
    """Send a signal to every process of a group that still exists."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _all_stats() -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            stat = _stat(int(entry.name))
            if stat:
                yield int(entry.name), stat


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name of the command: state, parent, group, …"""
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


@cache
def _boot() -> str:
    return os.environ.get("LLMPIPE_HOST", "") + _line(BOOT_ID)


def _line(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return ""
