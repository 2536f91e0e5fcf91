"""An event loop in a thread of its own, for callers in any thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopClosedError(RuntimeError):
    """The loop was closed before the work was done."""


class LoopThread:
    """Runs what several threads ask for, side by side. It keeps no program from ending.

    Its thread begins with the first work.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closing = asyncio.Event()
        self._closed = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Give what some work comes to; it is cancelled where its caller is interrupted.

        Raises:
            LoopClosedError: the loop is closed, or another thread closes it meanwhile.
        """
        future = self._begun(work)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise LoopClosedError("closed while the work was under way") from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what is left, and end the thread. To close it again does nothing."""
        with self._lock:
            if self._loop and not self._closed:
                self._loop.call_soon_threadsafe(self._closing.set)
            self._closed = True
        if self._thread:
            self._thread.join()

    def _begun(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        with self._lock:
            if self._closed:
                work.close()
                raise LoopClosedError("closed before the work began")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._live, args=(self._loop,), name="llmpipe-loop", daemon=True
                )
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _live(self, loop: asyncio.AbstractEventLoop) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._closing.wait())
