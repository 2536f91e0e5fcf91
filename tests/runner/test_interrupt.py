"""Requests to stop, and what they leave behind."""

from __future__ import annotations

import threading
from pathlib import Path

from llmpipe.runner.interrupt import Interrupt


def descriptors() -> int:
    """Count the open file descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_descriptor_is_left_in_any_thread() -> None:
    """Two were left by every run outside the main thread."""

    def watch() -> None:
        with Interrupt().watching():
            pass

    before = descriptors()
    watch()
    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert descriptors() == before
