"""The command line as somebody at a terminal sees it, and types."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path


class Terminal:
    """The command line at a terminal of its own, in this folder or another one."""

    def __init__(self, *arguments: str, folder: Path = Path(), **env: str) -> None:
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests in the background ignore it
            os.chdir(folder)
            command = [sys.executable, "-m", "llmpipe", *arguments]
            os.execve(sys.executable, command, {**os.environ, **env})
        self.seen = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._end)

    def answer(self, prompt: str, keys: str) -> None:
        """Wait for a prompt, or other text, that was not there yet, and type."""
        self._read(until=prompt)
        self.seen = self.seen.partition(prompt)[2]
        os.write(self._end, keys.encode())

    def leave(self, prompt: str, key: bytes) -> int:
        """Press Ctrl-C or Ctrl-D at a prompt, and again after a while, and return the exit code.

        One that comes between the show of a prompt and the wait for an answer is lost, to anybody.
        """
        self._read(until=prompt)
        for _ in range(10):
            os.write(self._end, key)
            with suppress(AssertionError):
                self._read(until=None, seconds=6)
                break
        return self.ends()

    def ends(self) -> int:
        """Wait for the end, and return the exit code."""
        self._read(until=None)
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def _read(self, until: str | None, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while until is None or until not in self.seen:
            ready, _, _ = select.select([self._end], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{until!r} is not in {self.seen!r}"
            try:
                text = os.read(self._end, 1 << 16).decode("utf-8", "replace")
            except OSError:  # its other end is closed
                text = ""
            if not text:
                assert until is None, f"{until!r} is not in {self.seen!r}"
                return
            self.seen += text.replace("\r\n", "\n")
