"""Waiting: for a place, for work in a thread, and no longer than the client does.

All of it happens in the event loop's one thread. Work goes on in threads that do not keep the
program from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from llmpipe.web.errors import ApiError

RETRY_AFTER = 5
"""Seconds after which it makes sense to ask a busy service again."""

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
            raise ApiError(
                503,
                "busy",
                f"{self.waiting} requests wait already; ask again in a while",
                {"Retry-After": str(RETRY_AFTER)},
            )
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1

    def leave(self) -> None:
        """Give the place to the next one."""
        self._free.release()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Have a place for as long as the block lasts; see `enter`."""
        await self.enter()
        try:
            yield
        finally:
            self.leave()


async def in_thread(work: Callable[[], T]) -> T:
    """Do what would block in a thread of its own."""
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

    threading.Thread(target=run, daemon=True).start()
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


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
