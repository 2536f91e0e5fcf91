"""How near the client gets to concurrency ÷ latency, on a clock that moves only when all wait.

The time of the machine plays no part: what is measured is the waiting that the client decides on.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import openai
import pytest

from llmpipe.backends.openai.chat import TEACHER
from llmpipe.backends.openai.client import ApiClient, Failure, MalformedReplyError

pytestmark = pytest.mark.heavy

LATENCY = 0.05
TIMEOUT = 2.0
REQUEST = httpx2.Request("POST", "http://127.0.0.1:9/v1")


@pytest.fixture(autouse=True)
def no_waiting() -> None:
    """Keep the real pauses: they cost no time here."""


class _Selector(selectors.SelectSelector):
    """Does not wait, but moves the clock by the time that it would have waited."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self.loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout:
            self.loop.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own."""

    def __init__(self) -> None:
        self.now = 1.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


def refusal(status: int, **headers: str) -> openai.APIStatusError:
    """Return the error of a refused request."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx2.Response(status, request=REQUEST, headers=names)
    return openai.APIStatusError(f"HTTP {status}", response=response, body=None)


def asked(
    concurrency: int, count: int, send: Callable[[Any, int], Awaitable[float]]
) -> tuple[list[float | Failure], ApiClient]:
    """Send numbered requests on a virtual clock; a reply is the time when it came."""
    client = ApiClient("http://127.0.0.1:9/v1", TEACHER, concurrency, timeout=TIMEOUT)
    loop = VirtualLoop()
    client._throttle.clock = loop.time
    client._api = object()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(client._call_all(list(range(count)), send)), client


def rate(replies: list[float | Failure], concurrency: int) -> float:
    """Return the rate between the first and the last tenth, as a share of concurrency ÷ latency."""
    times = sorted(reply for reply in replies if isinstance(reply, float))
    assert len(times) == len(replies)  # none is lost
    tenth = len(times) // 10
    middle = times[tenth:-tenth]
    return (len(middle) - 1) / (middle[-1] - middle[0]) * LATENCY / concurrency


@pytest.mark.parametrize("concurrency", [4, 16, 64])
def test_faults_at_random_cost_little(concurrency: int) -> None:
    """5 % 429, 2 % 500, 1 % that hang and 1 % malformed leave 0.9 of concurrency ÷ latency."""
    chance = random.Random(concurrency)

    async def send(api: Any, number: int) -> float:
        drawn = chance.random()
        if drawn < 0.01:
            await asyncio.sleep(TIMEOUT)
            raise openai.APITimeoutError(REQUEST)
        if drawn < 0.06:
            raise refusal(429)
        await asyncio.sleep(LATENCY)
        if drawn < 0.08:
            raise refusal(500)
        if drawn < 0.09:
            raise MalformedReplyError("half of it")
        return asyncio.get_running_loop().time()

    replies, _ = asked(concurrency, 150 * concurrency + 1000, send)
    assert rate(replies, concurrency) >= 0.9


def test_an_endpoint_with_fewer_places_is_not_flooded() -> None:
    """Where more than eight at once get a 429, the client comes down to about eight."""
    in_flight = most = refused = 0

    async def send(api: Any, number: int) -> float:
        nonlocal in_flight, most, refused
        in_flight += 1
        try:
            if in_flight > 8:
                refused += 1
                raise refusal(429)
            await asyncio.sleep(LATENCY)
        finally:
            in_flight -= 1
        return asyncio.get_running_loop().time()

    replies, client = asked(32, 4000, send)
    assert rate(replies, 8) >= 0.5
    assert refused < 1000  # a fifth of all
    assert client._throttle.limit <= 16


def test_retry_after_is_obeyed() -> None:
    """Nothing is sent before the time that the endpoint names."""
    begun: list[float] = []

    async def send(api: Any, number: int) -> float:
        now = asyncio.get_running_loop().time()
        begun.append(now)
        if len(begun) == 1:
            raise refusal(429, retry_after="7")
        await asyncio.sleep(LATENCY)
        return now

    asked(1, 3, send)
    assert begun[1] - begun[0] >= 7
