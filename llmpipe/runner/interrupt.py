"""Count Ctrl-C: the first asks a run to stop, the second asks it not to wait."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupt:
    """Counts requests to stop: SIGINT from the keyboard, SIGTERM from a supervisor.

    ``wakeup`` is a file descriptor that becomes readable with the first request, so that a loop
    that waits for files notices.
    """

    def __init__(self) -> None:
        self.count = 0
        self.immediate = False
        """Whether a signal raises KeyboardInterrupt at once, while waiting inside Python code."""
        self.wakeup, self._signal = os.pipe()
        os.set_blocking(self._signal, False)

    @contextlib.contextmanager
    def watching(self) -> Iterator[Interrupt]:
        """Handle the signals, if this is the main thread. Can be used once."""
        before = {}
        try:
            if threading.current_thread() is threading.main_thread():
                for number in (signal.SIGINT, signal.SIGTERM):
                    if signal.getsignal(number) != signal.SIG_IGN:  # a background job
                        before[number] = signal.signal(number, self._note)
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self.wakeup)
            os.close(self._signal)

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Let a request to stop interrupt the code inside."""
        self.immediate = True
        try:
            yield
        finally:
            self.immediate = False

    def hurry(self) -> bool:
        """Return whether the user has asked twice."""
        return self.count > 1

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        with contextlib.suppress(BlockingIOError):
            os.write(self._signal, b"!")
        if self.immediate:
            raise KeyboardInterrupt
