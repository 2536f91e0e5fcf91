"""Show the progress of hashing a big input file on a terminal."""

from __future__ import annotations

import time
from pathlib import Path

from llmpipe.terminal import redraw

BIG = 1 << 28
"""Bytes from which the progress of a file is shown: about a second's hashing."""

PAUSE = 0.2
"""Seconds between two updates."""


class HashProgress:
    """Called while a file is read, with its path, the bytes read so far, and all of them."""

    def __init__(self) -> None:
        self._due = 0.0

    def __call__(self, path: Path, done: int, total: int) -> None:
        if total < BIG:
            return
        if done >= total:
            redraw("")
        elif time.monotonic() >= self._due:
            self._due = time.monotonic() + PAUSE
            redraw(f"hashing {path.name}: {100 * done // total} %")
