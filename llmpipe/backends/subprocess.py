"""Run an outside program as a child, see its lines as they come, and keep them in the log."""

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
    """How a child ended: its exit status and its last lines."""

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
    """Run ``command``; pass every line of its output on to our own output and to ``on_line``.

    ``env`` is added to the environment. The child stays in our process group, so that whoever
    stops us stops it; an exception from ``on_line`` kills it and passes on. A carriage return
    ends a line too: progress bars become lines.
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
            for raw in process.stdout:  # universal newlines: \r ends a line as well
                line = raw.rstrip("\n")
                if line.strip():
                    tail.append(line)
                    print(line, flush=True)
                if on_line:
                    on_line(line)
        except BaseException:
            process.kill()  # else leaving the block would wait for it to end by itself
            raise
    sys.stdout.flush()
    return ChildResult(process.returncode, list(tail))
