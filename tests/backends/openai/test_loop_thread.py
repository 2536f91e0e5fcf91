"""The loop in a thread of its own: when it begins, and how it ends."""

from __future__ import annotations

import asyncio
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from llmpipe.backends.openai.loop_thread import LoopClosedError, LoopThread


async def seven() -> int:
    """Take a while."""
    await asyncio.sleep(0)
    return 7


def test_it_begins_with_the_first_work() -> None:
    """Without any call, no thread is started."""
    before = set(threading.enumerate())
    loop = LoopThread()
    assert set(threading.enumerate()) <= before
    assert loop.run(seven()) == 7
    assert len(set(threading.enumerate()) - before) == 1
    loop.close()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("used", [True, False])
def test_it_may_be_closed_twice_and_then_takes_nothing(used: bool) -> None:
    """What comes too late is told so, and leaves no coroutine that is never awaited."""
    loop = LoopThread()
    if used:
        loop.run(seven())
    loop.close()
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LoopClosedError):
            loop.run(seven())


def test_whoever_waits_while_it_is_closed_is_told() -> None:
    """Their work is cancelled in its thread, and they are not left waiting."""
    loop, begun, cancelled = LoopThread(), threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: loop.run(work()))
        assert begun.wait(10)
        loop.close()
        with pytest.raises(LoopClosedError):
            waiting.result(10)
    assert cancelled.is_set()
