"""``llmpipe serve`` as a process of its own: its address, its figures, its memory."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path

import httpx

from benchmarks.rag.contender import ContenderError
from benchmarks.rag.setting import Setting

PATIENCE = 600.0
"""Seconds in which the models must have loaded."""


class Service:
    """The service of a folder's spec. Use it as a context manager.

    Raises:
        ContenderError: it does not come up.
    """

    def __init__(self, folder: Path, setting: Setting) -> None:
        self._log = setting.folder / "serve.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [setting.python, "-m", "llmpipe", "serve", "spec.yaml", "--port", "0"],
                cwd=folder,
                env=setting.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.url = ""

    def __enter__(self) -> Service:
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(r"serving on (http://\S+)", self._log.read_text("utf-8"))):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise ContenderError(f"llmpipe serve failed:\n{self._log.read_text('utf-8')}")
            time.sleep(0.1)
        self.url = found[1]
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    def metric(self, name: str) -> float:
        """Return a figure of the service, 0 where it has not counted yet."""
        lines = httpx.get(f"{self.url}/metrics", timeout=60).text.splitlines()
        values = [line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")]
        return float(values[0]) if values else 0.0

    def megabytes(self) -> float:
        """Return the resident memory of the service and of all processes below it."""
        return sum(map(_resident, _family(self._process.pid))) / 1024


def _family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    return [pid, *(member for child in children for member in _family(child))]


def _resident(pid: int) -> int:
    """Return the kilobytes that a process holds in memory, of files mapped included."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0
