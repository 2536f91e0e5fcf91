"""The processes of a store's runs, found as a user with `ps` would, and waiting for what they do."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path


def run_processes(home: Path) -> list[int]:
    """Return the workers of every run of a store, and all that they started, fork servers included."""
    try:
        runs = {f"LLMPIPE_RUN={run.name}".encode() for run in (home / "runs").iterdir()}
    except FileNotFoundError:
        return []
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and runs & {*(entry / "environ").read_bytes().split(b"\0")}:
                found.append(int(entry.name))
    return found


def parent_and_session(pid: int) -> tuple[int, int]:
    """Return the parent and the session of a process; zeros when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return 0, 0
    parent, _, session = fields.rpartition(")")[2].split()[1:4]
    return int(parent), int(session)


def kill(pids: Iterable[int]) -> None:
    """Kill processes with SIGKILL; those that are gone already are as good."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_for(found: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something is so; a busy machine may take its time."""
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, "it did not come to it"
        time.sleep(0.02)


def holds_text(path: Path) -> bool:
    """Return whether a file is there and holds something."""
    return path.exists() and bool(path.read_text("utf-8").strip())
