"""Run an external program as a subprocess, and pass on its output line by line."""

from __future__ import annotations

import collections
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ChildResult:
    """The result of a subprocess: its exit code and its last lines."""

    returncode: int
    tail: list[str]


def run_child(
    command: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
    tail_lines: int = 40,
) -> ChildResult:
    """Run a command, and pass every line of its output to our own output and to ``on_line``.

    The subprocess stays in our process group, so it is stopped together with us. An exception in
    ``on_line`` kills it. A carriage return also ends a line, so progress bars become lines.

    Args:
        command: The command and its arguments.
        cwd: The working folder; by default ours.
        env: Variables that are added to the environment.
        on_line: Called with every line.
        tail_lines: The number of last lines that are kept.
    """
    tail: collections.deque[str] = collections.deque(maxlen=tail_lines)
    with subprocess.Popen(
        [os.fspath(part) for part in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        bufsize=1,
    ) as process:
        assert process.stdout is not None
        try:
            for raw in process.stdout:  # universal newlines: \r also ends a line
                line = raw.rstrip("\n")
                if line.strip():
                    tail.append(line)
                    print(line, flush=True)
                if on_line:
                    on_line(line)
        except BaseException:
            process.kill()  # otherwise leaving the block would wait for it
            raise
    sys.stdout.flush()
    return ChildResult(process.returncode, list(tail))
