"""How many requests an endpoint gets at the same time: additive increase, multiplicative decrease.

The limit falls to three quarters when an endpoint is overloaded, and rises by one after 25
successes. It is overloaded when more than a fifth of the last replies are 429s: a few of them at
random are retried and change nothing. A Retry-After header is always obeyed. A request that takes
much longer than the others lends its place to one more request: an endpoint that leaves some
requests without an answer does not slow down the rest.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

COOL_DOWN = 2.0
"""Seconds without new requests to an overloaded endpoint that sends no Retry-After header; less
where replies are quick."""
COOLING = 4.0
"""The same in durations of a reply."""
OVERLOADED = 0.2
"""The share of 429s among the last replies above which an endpoint counts as overloaded."""
REPLIES = 60
"""The number of last replies of which the share is taken."""
FEW_REPLIES = 30
"""Fewer replies than these count as so many, or a few 429s would make a large share."""
SUCCESSES_PER_STEP = 25
"""The number of successes after which one more concurrent request is allowed."""
SEEN = 64
"""The number of last replies whose durations are known."""
FEWEST = 16
"""The number of replies before which no request counts as stalled."""
STALLED = 2.0
"""A request has stalled after this many times the 95th percentile of the last durations."""


@dataclass(slots=True)
class Throttle:
    """The limit of concurrent requests. Requests get places in the order in which they ask."""

    ceiling: int
    lends: bool = True
    """Whether stalled requests lend their places. Our own server has no more slots."""
    clock: Callable[[], float] = time.monotonic
    limit: float = 0.0
    in_flight: int = 0
    stalled: int = 0
    not_before: float = 0.0
    successes: int = 0
    _counted_until: float = 0.0
    _waiting: collections.deque[asyncio.Future[None]] = field(default_factory=collections.deque)
    _durations: collections.deque[float] = field(
        default_factory=lambda: collections.deque(maxlen=SEEN)
    )
    _refused: collections.deque[bool] = field(
        default_factory=lambda: collections.deque(maxlen=REPLIES)
    )
    _patience: float | None = None
    _usual: float | None = None
    """The median of the last durations."""
    _in_a_row: int = 0
    _timer: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self.limit = float(self.ceiling)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a free place and for the end of a cool-down; hold the place in the block."""
        await self._enter()
        stalls = None
        lent = False

        def lend() -> None:
            nonlocal lent
            lent = True
            self.stalled += 1
            self._admit()

        if self.lends and self._patience is not None:
            stalls = asyncio.get_running_loop().call_later(self._patience, lend)
        try:
            yield
        finally:
            if stalls is not None:
                stalls.cancel()
            self.stalled -= lent
            self.in_flight -= 1
            self._admit()

    def succeeded(self, seconds: float) -> None:
        """Count a success; every 25th adds one place, up to the ceiling."""
        self.successes += 1
        self._refused.append(False)
        self._in_a_row = 0
        if self.successes % SUCCESSES_PER_STEP == 0:
            self.limit = min(float(self.ceiling), self.limit + 1)
        self._durations.append(seconds)
        if len(self._durations) >= FEWEST and self.successes % (FEWEST // 2) == 0:
            known = sorted(self._durations)
            self._patience = STALLED * known[int(0.95 * len(known))]
            self._usual = known[len(known) // 2]

    def overloaded(self, retry_after: float | None) -> None:
        """Count a 429; of an overloaded endpoint, fewer places, and none before a cool-down."""
        now = self.clock()
        self._refused.append(True)
        self._in_a_row += 1
        if retry_after:
            self.not_before = max(self.not_before, now + retry_after)
        if now < self._counted_until:  # a burst of 429s counts once
            return
        if self._refused.count(True) > OVERLOADED * max(FEW_REPLIES, len(self._refused)):
            self.limit = max(1.0, self.limit * 0.75)
            pause = COOL_DOWN if self._usual is None else min(COOL_DOWN, COOLING * self._usual)
            self.not_before = max(self.not_before, now + (retry_after or pause))
            self._counted_until = self.not_before
            self._refused.clear()

    @property
    def rest(self) -> float:
        """The seconds for which a refused request keeps its place.

        The second and later 429s in a row come from an endpoint that is full: a place that is free
        at once would only take the next request there.
        """
        return self._usual or 0.0 if self._in_a_row > 1 else 0.0

    async def _enter(self) -> None:
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it had just got the place
                self.in_flight -= 1
                self._admit()
            raise

    def _admit(self) -> None:
        """Give free places to those that wait longest."""
        while self._waiting and self.in_flight - self._lent() < int(self.limit):
            pause = self.not_before - self.clock()
            if pause > 0:
                self._later(pause)
                return
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)

    def _later(self, pause: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(pause, self._resume)

    def _resume(self) -> None:
        self._timer = None
        self._admit()

    def _lent(self) -> int:
        return min(self.stalled, self.ceiling)
