"""Says on a terminal how far the hashing of a big input file is."""

from __future__ import annotations

import time
from pathlib import Path

from llmpipe.terminal import redraw

BIG = 1 << 28
"""Bytes of a file from which on it is worth a word: about a second's hashing."""

PAUSE = 0.2
"""Seconds between two words."""


class HashProgress:
    """Called while a file is read: its path, the bytes read so far, and all of them."""

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
