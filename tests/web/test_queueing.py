"""Many who ask at once, and those who leave."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from typing import Any

import pytest
from town_service import SAYS, Serve, Served, waited
from web.calling import error_of, question, until

from llmpipe.web.queueing import WORKER
from llmpipe.web.search_routes import PLACES

pytestmark = pytest.mark.heavy


def raw_question(served: Served, **fields: Any) -> socket.socket:
    """Ask over a bare connection, and do not read what comes."""
    return raw_request(served, "/v1/chat/completions", {"messages": question(), **fields})


def raw_request(served: Served, path: str, fields: dict[str, Any]) -> socket.socket:
    """Send a request over a bare connection, and do not read what comes."""
    place = served.url.removeprefix("http://")
    host, port = place.split(":")
    connection = socket.create_connection((host, int(port)))
    body = json.dumps(fields)
    head = f"POST {path} HTTP/1.1\r\nHost: {place}\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall((head + body).encode())
    return connection


@pytest.mark.parametrize("stream", [True, False])
def test_who_hangs_up_frees_the_slot(serve: Serve, stream: bool) -> None:
    """Within a second, streamed or not: the endpoint hears it, and the next question is answered."""
    served = serve(slots=1)
    served.endpoint.pause = 0.2
    served.endpoint.reply = lambda body: ("The kiosk opens. " * 200, "stop")
    connection = raw_question(served, stream=stream)
    assert until(lambda: len(served.asked()) == 1, 5)
    time.sleep(0.5)
    connection.close()
    begun = time.monotonic()
    served.endpoint.reply = lambda body: (SAYS, "stop")
    assert served.endpoint.hung_up.wait(10)
    served.endpoint.pause = 0
    assert served.ask().json()["choices"][0]["message"]["content"] == SAYS
    assert time.monotonic() - begun < 1.5


def test_who_hangs_up_leaves_the_line(serve: Serve) -> None:
    """A question whose asker is gone is never put to the model."""
    served = serve(slots=1)
    held = threading.Event()
    served.endpoint.before = lambda body, number: waited(held) if number == 1 else None
    first = raw_question(served)
    assert until(lambda: len(served.asked()) == 1, 5)
    second = raw_question(served)
    assert until(lambda: served.metric("llmpipe_questions_waiting") == 1, 5)
    second.close()
    assert until(lambda: served.metric("llmpipe_questions_waiting") == 0, 1)
    held.set()
    assert first.recv(12).endswith(b"200")
    first.close()
    assert len(served.asked()) == 1
    line = 'llmpipe_requests_total{route="/v1/chat/completions",status="499"}'
    assert served.metric(line) == 1


def test_searches_that_nobody_waits_for_take_no_threads(serve: Serve) -> None:
    """They keep their places until they have ended; those behind them are never searched for."""
    served = serve(asks_embedder=True)
    held = threading.Event()
    served.endpoint.before = lambda body, number: waited(held)
    for number in range(1, 13):
        connection = raw_request(served, "/v1/search", {"query": "kiosk"})
        begun = min(number, PLACES)
        assert until(lambda begun=begun: len(served.endpoint.received) == begun, 5)
        time.sleep(0.02)
        connection.close()
    gone = 'llmpipe_requests_total{route="/v1/search",status="499"}'
    assert until(lambda: served.metric(gone) == 12, 5)
    assert len([each for each in threading.enumerate() if each.name == WORKER]) == PLACES
    held.set()
    assert served.http.post("/v1/search", json={"query": "kiosk"}).status_code == 200
    assert len(served.endpoint.received) == PLACES + 1


def test_a_thread_that_cannot_start_costs_no_slot(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said that the service is busy, and the next question is answered."""

    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    served = serve(slots=1)
    with monkeypatch.context() as patch:
        patch.setattr("llmpipe.web.queueing.Thread", NoThread)
        for _ in range(PLACES + 1):
            for response in (served.ask(), served.http.post("/v1/search", json={"query": "a"})):
                assert error_of(response) == (503, "server_error", "busy")
                assert int(response.headers["retry-after"]) > 0
    assert served.ask().status_code == 200
    assert served.http.post("/v1/search", json={"query": "a"}).status_code == 200


def test_a_full_line_is_said(serve: Serve) -> None:
    """503 with when to come again; searches and the health go on, and no request that waits is lost."""
    served = serve(slots=1, waiting=2)
    held = threading.Event()
    served.endpoint.before = lambda body, number: waited(held)
    waiting = [raw_question(served) for _ in range(3)]
    assert until(lambda: served.metric("llmpipe_questions_waiting") == 2, 5)
    refused = served.ask()
    assert error_of(refused) == (503, "server_error", "busy")
    assert int(refused.headers["retry-after"]) > 0
    assert served.http.get("/health").status_code == 200
    assert served.http.post("/v1/search", json={"query": "kiosk"}).status_code == 200
    held.set()
    for connection in waiting:
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert SAYS in response.read().decode()
        connection.close()


def test_slots_are_used_and_no_more(serve: Serve) -> None:
    """Two questions are answered at the same time, the third when one of them is done."""
    served = serve(slots=2)
    met = threading.Barrier(2)
    served.endpoint.before = lambda body, number: waited(met)
    connections = [raw_question(served) for _ in range(4)]
    for connection in connections:
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 200
        connection.close()
    assert served.endpoint.most_in_flight == 2
