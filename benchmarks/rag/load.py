"""Many clients at once against ``llmpipe serve``: no request is lost, and memory does not grow.

Every client searches and asks for answers, one thing after the other. A first round warms the
service up; the memory of its processes is compared before and after a second one. Then clients hang
up in the middle of answers, and the time is taken until the one who waits has the slot.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from benchmarks.rag.collection import SLOTS, collection
from benchmarks.rag.results import Measured, Table, Target, seconds
from benchmarks.rag.service import Service
from benchmarks.rag.setting import Setting

MODEL = "answers"
GROWTH = 40.0
"""Megabytes that threads and pools keep once they were needed."""
POLL = 0.01
PATIENCE = 600.0
"""Seconds after which a request counts as failed."""


def measure(setting: Setting) -> Measured:
    """Serve, send all clients twice, look at the memory, hang up."""
    _, passages = collection(setting)
    asked = [passage.question or "" for passage in passages if passage.question]
    with Service(setting.folder / "collection", setting) as service:
        started = service.megabytes()
        _round(service, setting, asked)
        before = service.megabytes()
        replies = _round(service, setting, asked)
        after = service.megabytes()
        waits = [_hang_up(service, asked) for _ in range(setting.rounds)]
    return _told(setting, replies, (started, before, after), waits)


def _round(service: Service, setting: Setting, asked: list[str]) -> dict[str, list[float]]:
    """Send all clients at once; return the seconds of each request, and how many failed."""
    replies: dict[str, list[float]] = {"search": [], "answer": [], "failed": []}

    def send(http: httpx.Client, kind: str, path: str, body: dict[str, Any]) -> None:
        begun = time.perf_counter()
        try:
            good = http.post(path, json=body).status_code == httpx.codes.OK
        except httpx.HTTPError:
            good = False
        replies[kind if good else "failed"].append(time.perf_counter() - begun)

    def client(number: int) -> None:
        with httpx.Client(base_url=service.url, timeout=PATIENCE) as http:
            for turn in range(setting.searches):
                query = asked[(number * 7 + turn) % len(asked)]
                send(http, "search", "/v1/search", {"query": query})
            for turn in range(setting.asked):
                question = _question(asked[(number * 5 + turn) % len(asked)], stream=turn % 2 == 0)
                send(http, "answer", "/v1/chat/completions", question)

    with ThreadPoolExecutor(setting.clients) as clients:
        list(clients.map(client, range(setting.clients)))
    return replies


def _hang_up(service: Service, asked: list[str]) -> float | None:
    """Take all slots and wait for one; return the seconds from a hang-up until there is one.

    None where an answer came to its end by itself in that time: that slot was not given up.
    """
    with (
        httpx.Client(base_url=service.url, timeout=PATIENCE) as http,
        ThreadPoolExecutor() as others,
    ):
        streams = [_begun(http, asked[number]) for number in range(SLOTS)]
        done = service.metric("llmpipe_answers_total")
        waiting = others.submit(
            http.post, "/v1/chat/completions", json=_question(asked[-1], stream=False)
        )
        while not service.metric("llmpipe_questions_waiting") and not waiting.done():
            time.sleep(POLL)
        begun = time.perf_counter()
        streams[0].close()
        while service.metric("llmpipe_questions_waiting"):
            time.sleep(POLL)
        passed = time.perf_counter() - begun
        ended = service.metric("llmpipe_answers_total") != done
        for stream in streams[1:]:
            stream.close()
        waiting.result()
    return None if ended else passed


def _begun(http: httpx.Client, question: str) -> Generator[str, None, None]:
    """Ask, and come back when the search is done and the model is at work; closing hangs up."""
    stream = _lines(http, question)
    next(stream)
    return stream


def _lines(http: httpx.Client, question: str) -> Generator[str, None, None]:
    with http.stream("POST", "/v1/chat/completions", json=_question(question)) as response:
        yield from response.iter_lines()


def _question(text: str, *, stream: bool = True) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": MODEL, "messages": messages, "stream": stream}


def _told(
    setting: Setting,
    replies: dict[str, list[float]],
    memory: tuple[float, float, float],
    waits: list[float | None],
) -> Measured:
    _, before, after = memory
    freed = [wait for wait in waits if wait is not None]
    rows = [_row(f"{len(taken)} x {kind}", taken) for kind, taken in replies.items() if taken]
    if freed:
        rows.append(_row(f"a slot is free after a hang-up ({len(freed)} times)", freed))
    memories = tuple(f"{megabytes:.0f} MB" for megabytes in memory)
    targets = [
        Target("requests that failed", len(replies["failed"]), most=0),
        Target("growth in the second round, MB", after - before, most=GROWTH),
    ]
    targets += [Target("a slot is free after a hang-up, s", max(freed), most=1)] if freed else []
    title = f"{setting.clients} clients at once, {SLOTS} slots"
    grown = ("started", "after a round", "after another")
    return Measured(
        "Load",
        [
            Table(title, ("", "median", "most"), rows),
            Table("Memory of the service and llama.cpp", grown, [memories]),
        ],
        targets,
        {"seconds": replies, "megabytes": memory, "freed": waits},
    )


def _row(what: str, taken: list[float]) -> tuple[str, ...]:
    return what, seconds(statistics.median(taken)), seconds(max(taken))
