"""What is measured: pauses of a stream, the speed of a prompt, and the way through the guard."""

from __future__ import annotations

import itertools
import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import uvicorn

from llmpipe.backends.binding import bind, reachable_url
from llmpipe.backends.llama_cpp.client import LlamaServer
from llmpipe.web.middleware import Admission
from llmpipe.web.model.service import make_model_service

BEFORE = 15
"""Pieces that are awaited before the long prompt is put."""
KEY = "benchmark"
STORY = {"prompt": "Once upon a time", "n_predict": -1, "ignore_eos": True, "stream": True}
_TIMEOUT = 1800


@dataclass(frozen=True, slots=True)
class Pauses:
    """A stream while a prompt is computed: seconds, and the prompt's tokens a second meanwhile."""

    longest: float
    median: float
    shared: float
    alone: float


def pauses(server: LlamaServer, tokens: int) -> Pauses:
    """Stream an answer, put a prompt of so many tokens, and watch the pieces until it is read."""
    alone = tokens / server.prefill(tokens)
    put, done = 0.0, threading.Event()
    taken: list[float] = []

    def ask() -> None:
        taken.append(server.prefill(tokens))
        done.set()

    times: list[float] = []
    asking = threading.Thread(target=ask)
    with _story(server.url) as pieces:
        for _ in pieces:
            times.append(time.perf_counter())
            if len(times) == BEFORE:
                put = times[-1]
                asking.start()
            if done.is_set():
                break
    asking.join()
    during = [b - a for a, b in itertools.pairwise(times) if a >= put]
    return Pauses(max(during), statistics.median(during), tokens / taken[0], alone)


@dataclass(frozen=True, slots=True)
class Way:
    """An answer on its way: seconds to the first piece, and from each to the next."""

    first: float
    between: float


def way(url: str, tokens: int) -> Way:
    """Stream an answer of so many tokens from an address."""
    begun = time.perf_counter()
    with _story(url, n_predict=tokens) as pieces:
        times = [time.perf_counter() for _ in pieces]
    return Way(times[0] - begun, (times[-1] - times[0]) / (len(times) - 1))


@contextmanager
def guarded(server: LlamaServer, model: Path, slots: int) -> Iterator[str]:
    """Put the guard before a server, in a thread; return its address."""
    service = make_model_service(server, model, Admission(api_key=KEY), slots=slots)
    listening = bind("127.0.0.1", 0)
    config = uvicorn.Config(service, lifespan="off", log_config=None, http="h11")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, args=([listening],))
    thread.start()
    try:
        yield reachable_url(*listening.getsockname()[:2])
    finally:
        running.should_exit = True
        thread.join()
        listening.close()


@contextmanager
def _story(url: str, **fields: Any) -> Iterator[Iterator[dict[str, Any]]]:
    """Have an answer streamed; return its pieces. To leave the block ends it."""
    headers = {"Authorization": f"Bearer {KEY}", "Host": urlsplit(url).netloc}
    asking = httpx.stream(
        "POST", f"{url}/completion", json=STORY | fields, headers=headers, timeout=_TIMEOUT
    )
    with asking as response:
        response.raise_for_status()
        lines = (line for line in response.iter_lines() if line.startswith("data: {"))
        yield (piece for line in lines if not (piece := json.loads(line[6:]))["stop"])
