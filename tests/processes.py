"""The processes of a store's runs, found as a user with `ps` would."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def run_processes(home: Path) -> list[int]:
    """Give the workers of every run of a store, and all that they started, fork servers included."""
    runs = {f"LLMPIPE_RUN={run.name}".encode() for run in (home / "runs").iterdir()}
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and runs & {*(entry / "environ").read_bytes().split(b"\0")}:
                found.append(int(entry.name))
    return found


def kill(pids: list[int]) -> None:
    """Kill processes with SIGKILL; those that are gone already are as good."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
