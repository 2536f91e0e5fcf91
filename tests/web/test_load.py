"""Many callers at once: no request is lost, and the service does not grow."""

from __future__ import annotations

import gc
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from town_service import SAYS, WHEN, Serve

pytestmark = pytest.mark.heavy

CLIENTS = 8
GROWTH = 40_000_000
"""Bytes that the process may grow by: what threads and pools keep once they were needed."""
QUERIES = ["kiosk morning", "building permit", "dogs lead parks fine", "bridge metres long"]


def resident() -> int:
    """Return the memory of this process, which the service is part of, in bytes."""
    gc.collect()
    with Path("/proc/self/statm").open() as statm:
        return int(statm.read().split()[1]) * 4096


def test_many_searches_and_answers_at_once(serve: Serve, long_form: bool) -> None:
    """Each caller gets what it asked for, whatever the others do; a second round takes no memory."""
    served = serve(slots=4)
    searches, answers = (400, 40) if long_form else (50, 6)

    def use(number: int) -> list[float]:
        seconds = []
        with httpx.Client(base_url=served.url, timeout=60) as client:
            for turn in range(searches):
                query = QUERIES[(number + turn) % len(QUERIES)]
                begun = time.perf_counter()
                response = client.post("/v1/search", json={"query": query, "k": 2})
                seconds.append(time.perf_counter() - begun)
                assert response.status_code == 200, response.text
                assert query.split()[0] in response.json()["hits"][0]["text"].lower()
            for turn in range(answers):
                body = {"messages": [{"role": "user", "content": f"{WHEN} {number} {turn}"}]}
                response = client.post(
                    "/v1/chat/completions", json=body | {"stream": turn % 2 == 0}
                )
                assert response.status_code == 200, response.text
                assert "[DONE]" in response.text if turn % 2 == 0 else SAYS in response.text
        return seconds

    def round_of_all() -> list[float]:
        with ThreadPoolExecutor(CLIENTS) as clients:
            return [each for seconds in clients.map(use, range(CLIENTS)) for each in seconds]

    round_of_all()
    before = resident()
    seconds = round_of_all()
    assert resident() - before < GROWTH
    assert served.metric("llmpipe_answers_total") == 2 * CLIENTS * answers
    assert served.metric("llmpipe_requests_in_flight") == 1
    assert statistics.median(seconds) < 1
