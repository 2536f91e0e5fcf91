"""Wait for a place in a queue and for work in a thread, but only while the client waits.

All waiting happens in the thread of the event loop. Work runs in daemon threads. A thread keeps its
place until it ends, even if the client disconnects, because places limit the number of threads.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from threading import Thread
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from llmpipe.web.errors import ApiError

RETRY_AFTER = 5
"""Seconds after which a client should retry a busy service."""
WORKER = "llmpipe-worker"
"""The name of every worker thread."""

T = TypeVar("T")


class Line:
    """A queue with limits on places and on waiting requests; first come, first served."""

    def __init__(self, places: int, waiting: int) -> None:
        self._free = asyncio.Semaphore(places)
        self._most = waiting
        self.waiting = 0
        """The number of waiting requests."""

    async def enter(self) -> None:
        """Wait for a place.

        Raises:
            ApiError: Too many requests are waiting.
        """
        if self._free.locked() and self.waiting >= self._most:
            raise busy(f"{self.waiting} requests are already waiting")
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place and hold it during the block.

        Raises:
            ApiError: Too many requests are waiting.
        """
        await self.enter()
        try:
            yield
        finally:
            self._free.release()

    def occupy(self, work: Callable[[], None]) -> None:
        """Run blocking work in its own thread, and release the place when it ends.

        Raises:
            ApiError: The system cannot start another thread; the place is released.
        """
        loop = asyncio.get_running_loop()

        def run() -> None:
            try:
                work()
            finally:
                call(loop, self._free.release)

        try:
            Thread(target=run, name=WORKER, daemon=True).start()
        except RuntimeError:
            self._free.release()
            raise busy("the system cannot start another thread") from None


async def in_turn(line: Line, work: Callable[[], T]) -> T:
    """Wait for a place, run work in a thread, and return its result.

    Raises:
        ApiError: Too many requests are waiting.
    """
    await line.enter()
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def set_unless_given_up(setter: Callable[[Any], None], value: Any) -> None:
        if not result.done():
            setter(value)

    def run() -> None:
        try:
            value = work()
        except Exception as error:
            call(loop, set_unless_given_up, result.set_exception, error)
        else:
            call(loop, set_unless_given_up, result.set_result, value)

    line.occupy(run)
    return await result


def call(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *given: Any) -> None:
    """Call a function in the loop's thread, from another thread."""
    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(function, *given)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of some work, unless the client disconnects.

    The body of the request must have been read.

    Raises:
        ClientDisconnect: The client has disconnected, and the work was canceled.
    """
    working = asyncio.ensure_future(work)
    hung_up = asyncio.ensure_future(_hang_up(receive))
    try:
        await asyncio.wait({working, hung_up}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        hung_up.cancel()
        await asyncio.gather(working, hung_up, return_exceptions=True)


def busy(reason: str) -> ApiError:
    """Return the error for a request that cannot be accepted at the moment."""
    retry = {"Retry-After": str(RETRY_AFTER)}
    return ApiError(503, "busy", f"{reason}; try again later", retry)


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
