"""The cost of a whole process: processor seconds, its children's included, and seconds passed."""

from __future__ import annotations

import os
import select
import signal
import statistics
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds that a command took: ``cpu`` is user and system time of it and of its children."""

    cpu: float
    wall: float


class CommandError(Exception):
    """A measured command failed: its figures would mean nothing."""


def measure(
    command: Sequence[str | Path],
    folder: Path,
    environment: Mapping[str, str],
    *,
    limit: float,
    log: Path,
) -> Cost | None:
    """Run a command and return what it cost, or None when it was stopped at its limit.

    Args:
        command: the program and its arguments.
        folder: where to run it.
        environment: all of its variables.
        limit: seconds after which it and all of its process group are killed.
        log: takes its output.

    Raises:
        CommandError: it ended with another status than 0.
    """
    with log.open("wb") as stream:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        stopped = not _ends_within(process.pid, limit)
        if stopped:
            os.killpg(process.pid, signal.SIGKILL)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if stopped:
        return None
    if process.returncode != 0:
        tail = log.read_text("utf-8", "replace")[-2000:]
        line = " ".join(map(str, command))
        raise CommandError(f"{line}\nended with status {process.returncode}:\n{tail}")
    return Cost(usage.ru_utime + usage.ru_stime, wall)


def median(costs: Iterable[Cost]) -> Cost:
    """Return the median of each figure: one busy moment of the machine does not shift it."""
    found = list(costs)
    return Cost(
        statistics.median(cost.cpu for cost in found),
        statistics.median(cost.wall for cost in found),
    )


def _ends_within(pid: int, seconds: float) -> bool:
    """Wait for a process without reaping it: what it used is asked for when that is done."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(descriptor)
