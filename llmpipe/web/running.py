"""Generate an answer in its own thread and read its events in the event loop.

The thread holds the place in the line and releases it when it ends. Stopping the answer wakes the
thread.
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
    """The events of an answer in progress. They are buffered until read, as answers are short."""

    def __init__(self, make: Making, line: Line) -> None:
        """Start the thread. It takes over a place that the caller holds in the line.

        Raises:
            ApiError: The system cannot start another thread.
        """
        self._make = make
        self._cancellation = Cancellation()
        self._events: asyncio.Queue[Event | Exception | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        line.occupy(self._work)

    async def next(self) -> Event | None:
        """Return the next event, or None at the end.

        Raises:
            StageError: The answer failed.
        """
        event = await self._events.get()
        if isinstance(event, Exception):
            raise event
        return event

    def stop(self) -> None:
        """Stop the work if it has not ended."""
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
