"""Streams of a served model: no prompt stops them for long, and who hangs up frees the slot."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from town_service import running
from web.calling import error_of, until
from web.model.conftest import BATCH, SLOTS, ServedModel

from llmpipe.backends.llama_cpp.client import LlamaServer
from llmpipe.backends.llama_cpp.serve import serve_gguf
from llmpipe.web.middleware import Admission
from llmpipe.web.model.service import make_model_service

pytestmark = pytest.mark.heavy

STORY: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Write a long story about a dog."}],
    "max_tokens": -1,
    "ignore_eos": True,
    "stream": True,
}
LONG = "the big house " * 180
"""A prompt of some 540 tokens."""
PATIENCE = 120
"""Seconds that a busy machine may take."""


@contextmanager
def story(model: ServedModel) -> Iterator[Iterator[str]]:
    """Have a long story streamed; return its pieces, the first of which has come."""
    with model.http.stream("POST", "/v1/chat/completions", json=STORY) as response:
        pieces = (line for line in response.iter_lines() if '"content":"' in line)
        next(pieces)
        yield pieces


def works(server: LlamaServer) -> bool:
    """Tell whether llama.cpp computes, by the time that its process takes."""

    def ticks() -> int:
        stat = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(stat[11]) + int(stat[12])

    before = ticks()
    time.sleep(0.5)
    return ticks() - before > 2


def pieces_during(model: ServedModel, text: str) -> int:
    """Count the pieces of a story that come from when a prompt is put until it is computed."""
    counted, computed, begun = 0, threading.Event(), threading.Event()

    def ask() -> None:
        body = {"prompt": text, "n_predict": 1, "cache_prompt": False, "stream": True}
        with model.http.stream("POST", "/completion", json=body) as response:
            begun.set()
            for line in response.iter_lines():
                if line.startswith("data:"):
                    break
            computed.set()

    with story(model) as pieces:
        asking = threading.Thread(target=ask)
        asking.start()
        for _ in pieces:
            if computed.is_set():
                break
            counted += 1
        asking.join(PATIENCE)
    return counted


def test_a_long_prompt_does_not_stop_a_stream(model: ServedModel) -> None:
    """A piece comes with each round of the prompt: as many as it has batches, but for a few."""
    rounds = len(model.server.tokenize(LONG)) // BATCH
    assert rounds > 30
    assert pieces_during(model, LONG) > rounds * 0.8


def test_by_llama_cpps_own_batch_it_does(smollm2_gguf: Path) -> None:
    """The whole prompt in one go, in which no other stream moves: the reason for the batch."""
    with serve_gguf(smollm2_gguf, threads=1, slots=SLOTS, alias="chat", api_key="k") as server:
        service = make_model_service(server, smollm2_gguf, Admission(), slots=SLOTS)
        with running(service) as url:
            model = ServedModel(url, server)
            assert pieces_during(model, LONG) < 10


def test_who_hangs_up_frees_the_slot(model: ServedModel) -> None:
    """In the middle of a stream: llama.cpp stops computing, and the place is another's."""
    with story(model):
        assert model.metric("llmpipe_requests_in_flight") == 2
    assert until(lambda: not works(model.server), PATIENCE)
    assert model.metric("llmpipe_requests_in_flight") == 1
    assert model.chat().status_code == 200


def test_who_hangs_up_in_the_middle_of_a_prompt_frees_the_slot(model: ServedModel) -> None:
    """Before a word has come, of an answer that is not streamed either."""
    for stream in (True, False):
        body = {"prompt": LONG + str(stream), "max_tokens": 500, "stream": stream}
        place = model.http.base_url
        caller = http.client.HTTPConnection(place.host, place.port)
        with closing(caller):
            headers = {"Content-Type": "application/json"}
            caller.request("POST", "/v1/completions", json.dumps(body), headers)
            assert until(lambda: model.metric("llmpipe_requests_in_flight") == 2, PATIENCE)
        assert until(lambda: model.metric("llmpipe_requests_in_flight") == 1, PATIENCE)
        assert until(lambda: not works(model.server), PATIENCE)


def test_who_waits_may_leave_and_who_comes_too_late_is_told(
    llama: LlamaServer, smollm2_gguf: Path
) -> None:
    """One place, and one who may wait: the third is told when to come again; lookups need none."""
    service = make_model_service(llama, smollm2_gguf, Admission(), slots=1, waiting=1)
    with running(service) as url:
        model = ServedModel(url, llama)
        with story(model):
            waits = httpx.Client(base_url=url, timeout=PATIENCE)
            waiting = threading.Thread(target=_give_up, args=(waits,))
            waiting.start()
            assert until(lambda: model.metric("llmpipe_requests_waiting") == 1, PATIENCE)
            busy = model.chat()
            assert error_of(busy) == (503, "server_error", "busy")
            assert busy.headers["retry-after"] == "5"
            assert model.http.post("/tokenize", json={"content": "a"}).status_code == 200
            assert model.http.get("/health").status_code == 200
            waiting.join(PATIENCE)
            assert until(lambda: model.metric("llmpipe_requests_waiting") == 0, PATIENCE)
        assert model.chat().status_code == 200


def _give_up(client: httpx.Client) -> None:
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/completions", json={"prompt": "a", "max_tokens": 2}, timeout=3)


def test_a_server_that_dies_is_told(smollm2_gguf: Path) -> None:
    """In the stream that it breaks, to who comes after, and by the health."""
    with serve_gguf(smollm2_gguf, threads=1, slots=SLOTS, alias="chat", api_key="k") as server:
        service = make_model_service(server, smollm2_gguf, Admission(), slots=SLOTS)
        with running(service) as url:
            model = ServedModel(url, server)
            with model.http.stream("POST", "/v1/chat/completions", json=STORY) as response:
                lines = (line for line in response.iter_lines() if line)
                next(lines)
                server.process.kill()
                *_, last = lines
            error = json.loads(last.removeprefix("data: "))["error"]
            assert error["code"] == "model_unavailable"
            assert error_of(model.chat())[::2] == (503, "model_unavailable")
            assert until(lambda: model.http.get("/health").status_code == 503, 10)
