"""An event loop in its own thread, for callers in any thread."""

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
    """Runs coroutines for several threads concurrently, in a daemon thread.

    The thread starts with the first coroutine.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closing = asyncio.Event()
        self._closed = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and return its result; cancel it if the caller is interrupted.

        Raises:
            LoopClosedError: The loop is closed, or another thread closes it during the work.
        """
        future = self._begun(work)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise LoopClosedError("closed during the work") from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel the remaining work and end the thread. Closing again has no effect."""
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
