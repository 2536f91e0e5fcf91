"""An answer that is made in a thread of its own, and read in the event loop.

The thread has the place in the line, and gives it up when it has ended, however that came: whoever
stops the answer wakes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing

from llmpipe.backends.streaming import Cancellation
from llmpipe.retrieval.answer import Event, Events
from llmpipe.web.queueing import Line, call

Making = Callable[[Cancellation], Events]


class Running:
    """The events of an answer that is being made. An answer is short: they are kept until read."""

    def __init__(self, make: Making, line: Line) -> None:
        """Begin; a place in the line must have been taken, and is given up in the end.

        Raises:
            ApiError: the system gives no more threads.
        """
        self._make = make
        self._cancellation = Cancellation()
        self._events: asyncio.Queue[Event | Exception | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        line.occupy(self._work)

    async def next(self) -> Event | None:
        """Give the next event; None when there are no more.

        Raises:
            StageError: the answer came to nothing.
        """
        event = await self._events.get()
        if isinstance(event, Exception):
            raise event
        return event

    def stop(self) -> None:
        """End the work, if it has not ended."""
        self._cancellation.cancel()

    def _work(self) -> None:
        last = None
        try:
            with closing(self._make(self._cancellation)) as events:
                for event in events:
                    call(self._loop, self._events.put_nowait, event)
                    if self._cancellation.cancelled:
                        break
        except Exception as error:
            last = error
        call(self._loop, self._events.put_nowait, last)
