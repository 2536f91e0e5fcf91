"""Waiting: for a place, for work in a thread, and no longer than the client does.

All of it happens in the event loop's one thread. Work goes on in threads that do not keep the
program from ending. A thread has the place that was waited for until it ends, whoever has hung up
meanwhile: places are what bounds the threads.
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
"""Seconds after which it makes sense to ask a busy service again."""
WORKER = "llmpipe-worker"
"""The name of every thread that works."""

T = TypeVar("T")


class Line:
    """So many places, and so many who may wait for one; first come, first served."""

    def __init__(self, places: int, waiting: int) -> None:
        self._free = asyncio.Semaphore(places)
        self._most = waiting
        self.waiting = 0
        """How many wait."""

    async def enter(self) -> None:
        """Wait for a place.

        Raises:
            ApiError: too many wait already.
        """
        if self._free.locked() and self.waiting >= self._most:
            raise busy(f"{self.waiting} requests wait already")
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place, and have it for as long as the block lasts.

        Raises:
            ApiError: too many wait already.
        """
        await self.enter()
        try:
            yield
        finally:
            self._free.release()

    def occupy(self, work: Callable[[], None]) -> None:
        """Do what would block in a thread of its own; at its end the place goes to the next one.

        Raises:
            ApiError: the system gives no more threads; the place is given up.
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
            raise busy("the system gives no more threads") from None


async def in_turn(line: Line, work: Callable[[], T]) -> T:
    """Wait for a place, and give what some work in a thread comes to.

    Raises:
        ApiError: too many wait already.
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
    """Call a function in the loop's thread, from another one."""
    with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
        loop.call_soon_threadsafe(function, *given)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Give what some work comes to, as long as the client waits for it.

    The body of the request must have been read.

    Raises:
        ClientDisconnect: the client has hung up; the work is cancelled.
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
    """Return the error of a request that there is no room for just now."""
    retry = {"Retry-After": str(RETRY_AFTER)}
    return ApiError(503, "busy", f"{reason}; ask again in a while", retry)


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
