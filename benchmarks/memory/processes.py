"""Run a program and see how much memory it and its subprocesses hold at most.

The kernel's proportional set size is read: a page that several processes share, such as that of a
mapped file, counts once. What is held for less than `INTERVAL` can be missed; for the last moments
of a process the kernel's own high-water mark does not help, because it counts shared pages again.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

INTERVAL = 0.05
"""Seconds between two readings."""


def peak_below(
    command: Sequence[str], environment: Mapping[str, str], folder: Path
) -> tuple[int, int]:
    """Run a command; return its exit code and the most that its subprocesses held, in bytes.

    The command itself is not counted, only what it starts.
    """
    with subprocess.Popen(
        command,
        cwd=folder,
        env=dict(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        most = 0
        while process.poll() is None:
            most = max(most, sum(map(_held, _descendants(process.pid))))
            time.sleep(INTERVAL)
    return process.returncode, most


def _descendants(root: int) -> list[int]:
    """Return the processes that a process has started, and theirs."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            parents.setdefault(_parent(folder), []).append(int(folder.name))
    found, waiting = [], [root]
    while waiting:
        below = parents.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _parent(folder: Path) -> int:
    try:
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):  # it has ended
        return -1


def _held(pid: int) -> int:
    """Return the proportional set size of a process, or 0 if it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    line = next((line for line in text.splitlines() if line.startswith("Pss:")), "Pss: 0 kB")
    return int(line.split()[1]) * 1024
