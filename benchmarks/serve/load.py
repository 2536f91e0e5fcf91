"""Many clients at once: what comes back whole, how fast, and how long the first word takes.

Every client sends chats one after the other and reads each answer as a stream. Failed requests,
and streams that end before their last event, are counted and named, never left out of the figures.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 1800
"""The maximum seconds of one read from a server."""
QUESTION = "Tell me a story about a town with {number} bridges and a boat."


@dataclass(frozen=True, slots=True)
class Load:
    """How many clients ask, how often, and for how many tokens."""

    clients: int
    requests: int
    """Requests of each client."""
    tokens: int
    """Maximum tokens of an answer."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: what came back, when, and why it is not whole, if it is not."""

    text: str = ""
    first: float | None = None
    """Seconds to the first piece of text."""
    failure: str | None = None
    """Why there is no answer at all."""
    cut: bool = False
    """Whether the stream ended without a reason to finish."""


@dataclass(slots=True)
class Stormed:
    """The requests of all clients, and the seconds from the first to the last."""

    seconds: float = 0.0
    asked: list[Asked] = field(default_factory=list)

    def speed(self, count: Callable[[str], int]) -> float:
        """Return the tokens a second of all clients together; ``count`` counts those of a text."""
        return sum(count(each.text) for each in self.asked) / self.seconds

    def failures(self) -> Counter[str]:
        """Return the reasons of failed requests, with how often each occurred."""
        return Counter(each.failure for each in self.asked if each.failure is not None)

    def cut(self) -> int:
        """Return the number of streams that ended before their answer did."""
        return sum(each.cut for each in self.asked)

    def worst_first(self) -> float:
        """Return the longest time to a first piece of text; infinite if none came."""
        return max((e.first for e in self.asked if e.first is not None), default=float("inf"))


def storm(url: str, model: str, key: str | None, load: Load) -> Stormed:
    """Have all clients ask at once, and return what they received."""
    found, lock = Stormed(), threading.Lock()

    def client(number: int) -> None:
        for at in range(load.requests):
            question = QUESTION.format(number=number * load.requests + at + 2)
            asked = _ask(url, model, key, question, load.tokens)
            with lock:
                found.asked.append(asked)

    clients = [threading.Thread(target=client, args=(n,)) for n in range(load.clients)]
    begun = time.perf_counter()
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    found.seconds = time.perf_counter() - begun
    return found


def _ask(url: str, model: str, key: str | None, question: str, tokens: int) -> Asked:
    place = urlsplit(url)
    body = {
        "model": model, "messages": [{"role": "user", "content": question}], "stream": True,
        "max_tokens": tokens, "temperature": 0,
    }  # fmt: skip
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    begun = time.perf_counter()
    text, first, finished = "", None, False
    try:
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=TIMEOUT)
        with closing(connection):
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            response = connection.getresponse()
            if response.status != 200:
                return Asked(failure=f"HTTP {response.status}: {response.read()[:200]!r}")
            for event in _events(response):
                if "error" in event:
                    return Asked(text, first, failure=f"in the stream: {event['error']}")
                for choice in event.get("choices", ()):
                    piece = choice.get("delta", {}).get("content") or ""
                    if piece and first is None:
                        first = time.perf_counter() - begun
                    text += piece
                    finished = finished or choice.get("finish_reason") is not None
    except (OSError, http.client.HTTPException) as error:
        if not text:
            return Asked(failure=repr(error))
        return Asked(text, first, cut=True)
    return Asked(text, first, cut=not finished)


def _events(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        data = line.removeprefix(b"data: ").strip()
        if line.startswith(b"data: ") and data != b"[DONE]":
            yield json.loads(data)
