"""The client of OpenAI-compatible endpoints, against one that speaks the protocol."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from chat_clients import client_for, error, questions
from openai_endpoint import Answer, Endpoint

from llmpipe.backends.openai.chat import TEACHER, ChatRequest
from llmpipe.backends.openai.client import ApiClient
from llmpipe.backends.openai.journal import Journal
from llmpipe.backends.openai.throttle import Throttle
from llmpipe.errors import StageError

pytestmark = pytest.mark.heavy


def test_replies_come_in_order_and_once(tmp_path: Path) -> None:
    """Order is that of the requests; asked again, all come from the journal."""
    with Endpoint() as endpoint:
        with client_for(endpoint.url, tmp_path, api_key="k3y") as client:
            first = client.ask(questions(20))
            assert client.ask(questions(20)) == first
            assert client.sent == 20
        assert len(endpoint.received) == 20
        assert len({reply.text for reply in first}) == 20
        assert endpoint.most_in_flight <= 4
        assert {headers["authorization"] for headers in endpoint.headers} == {"Bearer k3y"}
        sent = next(body for body in endpoint.received if body["seed"] == 7)
        assert (sent["temperature"], sent["max_tokens"], sent["model"]) == (0.5, 16, "m")
        assert "k3y" not in (tmp_path / "replies.jsonl").read_text()


def test_everything_that_shapes_a_reply_is_in_its_key(tmp_path: Path) -> None:
    """Another seed, temperature, limit, schema, draw, text or teacher is another request."""
    base: dict[str, Any] = {
        "messages": [{"role": "user", "content": "q"}],
        "temperature": 0.5,
        "max_tokens": 16,
        "seed": 1,
    }
    others = [
        {"seed": 2},
        {"temperature": 0.6},
        {"max_tokens": 17},
        {"schema": {"type": "object"}},
        {"draw": 1},
        {"messages": [{"role": "user", "content": "r"}]},
    ]
    with client_for("http://127.0.0.1:9/v1", tmp_path) as client:
        keys = {client.key(ChatRequest(**{**base, **other})) for other in [{}, *others]}
    with client_for("http://127.0.0.1:9/v1", tmp_path, identity={"model": "n"}) as client:
        keys.add(client.key(ChatRequest(**base)))
    assert len(keys) == len(others) + 2


def test_a_reply_is_known_by_the_whole_decoding(tmp_path: Path) -> None:
    """Of the greedy answer of a local model, what makes it greedy too: an older one was another."""
    greedy, drawn = (ChatRequest([{"role": "user", "content": "q"}], t, 16, 1) for t in (0.0, 0.7))
    with (
        client_for("http://127.0.0.1:9/v1", tmp_path) as here,
        client_for("http://127.0.0.1:9/v1", tmp_path, local=False) as elsewhere,
    ):
        assert here.key(drawn) == elsewhere.key(drawn)
        assert here.key(greedy) != elsewhere.key(greedy)


def test_a_passing_failure_is_sent_again_after_the_rest(tmp_path: Path) -> None:
    """A 500 and a 429 cost another attempt and nothing else."""

    def before(body: dict[str, Any], number: int) -> Answer | None:
        if number == 1:
            return error(500, "oops")
        return error(429, "slow down") if number == 2 else None

    with Endpoint(before) as endpoint, client_for(endpoint.url, tmp_path) as client:
        replies = client.ask(questions(8))
        assert all(reply.problem is None for reply in replies)
        assert len(endpoint.received) == 10
        again = {body["seed"] for body in endpoint.received[-2:]}
        assert again == {body["seed"] for body in endpoint.received[:2]}


def test_concurrency_falls_on_429_and_rises_on_success() -> None:
    """Three quarters after a burst of 429s, one more after 25 successes, never over the ceiling."""
    throttle = Throttle(8)
    for _ in range(12):  # one burst
        throttle.overloaded(None)
    assert throttle.limit == 6
    for _ in range(25):
        throttle.succeeded(0.1)
    assert throttle.limit == 7
    for _ in range(100):
        throttle.succeeded(0.1)
    assert throttle.limit == 8


def test_a_few_429s_at_random_change_nothing() -> None:
    """One in twenty is no overload: the limit stays, and there is no cool-down."""
    throttle = Throttle(8)
    for _ in range(20):
        for _ in range(19):
            throttle.succeeded(0.1)
        throttle.overloaded(None)
    assert throttle.limit == 8
    assert throttle.not_before == 0.0


def test_a_dead_endpoint_is_named(tmp_path: Path) -> None:
    """Nothing listens there: the error names the address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with client_for(url, tmp_path) as client, pytest.raises(StageError) as caught:
            client.ask(questions(3))
    assert f"cannot reach the teacher at {url}" in caught.value.message


def test_a_refused_key_ends_the_work_and_is_not_shown(tmp_path: Path) -> None:
    """A 401 is final; a server that echoes the key does not get it into our message."""
    with Endpoint(lambda body, number: error(401, "bad key k3y")) as endpoint:
        with (
            client_for(endpoint.url, tmp_path, api_key="k3y", concurrency=1) as client,
            pytest.raises(StageError, match=r"refuses the API key: bad key \[key\]"),
        ):
            client.ask(questions(3))
        assert len(endpoint.received) == 1


def test_an_empty_account_ends_the_work(tmp_path: Path) -> None:
    """A 402 says nothing about a request: no row is rejected for it."""
    with (
        Endpoint(lambda body, number: error(402, "no credit")) as endpoint,
        client_for(endpoint.url, tmp_path) as client,
        pytest.raises(StageError, match="asks for payment: no credit"),
    ):
        client.ask(questions(1))


def test_a_request_that_is_too_long_is_that_row_s_problem(tmp_path: Path) -> None:
    """The others are answered; the reply says what is wrong, and is not journaled."""

    def before(body: dict[str, Any], number: int) -> Answer | None:
        if body["seed"] == 1:
            return error(400, "9999 tokens", code="context_length_exceeded")
        return error(400, "indecent") if body["seed"] == 2 else None

    with Endpoint(before) as endpoint, client_for(endpoint.url, tmp_path) as client:
        replies = client.ask(questions(4))
        assert [reply.problem for reply in replies] == [None, "too long", "refused", None]
        assert "9999 tokens" in replies[1].detail
        client.ask(questions(4))
        assert len(endpoint.received) == 6


def test_an_endpoint_that_fails_half_of_the_time_is_given_up(tmp_path: Path) -> None:
    """The work stops early and says why."""

    def before(body: dict[str, Any], number: int) -> Answer | None:
        return error(503, "out of order") if body["seed"] % 2 else None

    with (
        Endpoint(before) as endpoint,
        client_for(endpoint.url, tmp_path) as client,
        pytest.raises(StageError, match=r"failed 10 of the last .*out of order"),
    ):
        client.ask(questions(60))


def test_several_threads_ask_at_once(tmp_path: Path) -> None:
    """None of them waits for the reply of another, and each gets its own."""
    met = threading.Barrier(3)

    def before(body: dict[str, Any], number: int) -> Answer | None:
        met.wait(20)
        return None

    found: dict[int, str] = {}
    with Endpoint(before) as endpoint, client_for(endpoint.url, tmp_path) as client:
        endpoint.reply = lambda body: (f"to {body['messages'][0]['content']}", "stop")

        def ask(number: int) -> None:
            found[number] = client.ask([questions(3)[number]])[0].text

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {0: "to q0", 1: "to q1", 2: "to q2"}


def test_a_client_that_is_closed_asks_nothing(tmp_path: Path) -> None:
    """Neither what is under way in another thread nor what comes later; closing again does no harm."""
    come, let_go = threading.Event(), threading.Event()

    def before(body: dict[str, Any], number: int) -> Answer | None:
        come.set()
        let_go.wait(20)
        return None

    with Endpoint(before) as endpoint, ThreadPoolExecutor(1) as pool:
        with client_for(endpoint.url, tmp_path) as client:
            waiting = pool.submit(client.ask, questions(1))
            assert come.wait(10)
        with pytest.raises(StageError, match=f"the teacher at {endpoint.url}"):
            waiting.result(10)
        let_go.set()
        client.__exit__()
        with Journal(tmp_path) as client.journal, pytest.raises(StageError, match="was closed"):
            client.ask(questions(1))


def test_a_client_that_cannot_be_closed_leaves_no_thread() -> None:
    """The failure is told, and the thread ends."""

    async def broken() -> None:
        raise OSError("the socket is gone")

    async def send(api: Any, request: str) -> str:
        api.close = broken
        return request

    client = ApiClient("http://127.0.0.1:9/v1", TEACHER, 1)
    before = set(threading.enumerate())
    client.call(["a"], send)
    assert set(threading.enumerate()) - before
    with pytest.raises(OSError, match="the socket is gone"):
        client.__exit__()
    assert set(threading.enumerate()) <= before


def test_a_truncated_reply_says_so(tmp_path: Path) -> None:
    """The journal keeps the mark."""
    with Endpoint() as endpoint, client_for(endpoint.url, tmp_path) as client:
        endpoint.reply = lambda body: ("cut of", "length")
        assert client.ask(questions(1))[0].truncated
        assert client.ask(questions(1))[0].truncated
        assert client.sent == 1


ASK = """
import sys
from pathlib import Path
from llmpipe.backends.openai.journal import Journal
from llmpipe.backends.openai.throttle import Throttle
from llmpipe.backends.openai.chat import ChatClient, ChatRequest
with Journal(Path(sys.argv[2])) as journal, ChatClient(
    sys.argv[1], "m", {}, journal, concurrency=1, local=True
) as client:
    client.ask([ChatRequest([{"role": "user", "content": f"q{i}"}], 0, 9, i) for i in range(12)])
"""


def test_a_killed_client_resends_nothing_that_was_answered(tmp_path: Path) -> None:
    """kill -9 while the eighth reply is awaited: the second run sends that one and the rest."""
    waiting, go_on = threading.Event(), threading.Event()

    def before(body: dict[str, Any], number: int) -> Answer | None:
        if number == 8:
            waiting.set()
            go_on.wait(30)
        return None

    with Endpoint(before) as endpoint:
        command = [sys.executable, "-c", ASK, endpoint.url, str(tmp_path)]
        with subprocess.Popen(command) as client:
            assert waiting.wait(60)
            os.kill(client.pid, signal.SIGKILL)
        go_on.set()
        assert subprocess.run(command).returncode == 0
        seeds = [body["seed"] for body in endpoint.received]
        assert sorted(seeds) == sorted([*range(12), seeds[7]])


@pytest.mark.parametrize(
    ("thought", "text"),
    [
        (("reasoning_content", "Hm."), "At nine."),
        (("reasoning", "Hm."), "At nine."),
        (("reasoning", ""), "<think>Hm.</think>\n\nAt nine."),
        (("reasoning", ""), "Hm.</think>\n\nAt nine."),
    ],
)
def test_reasoning_is_no_part_of_the_text(
    tmp_path: Path, thought: tuple[str, str], text: str
) -> None:
    """Regression: tags in the content became part of the answer, a field beside it was dropped."""
    with Endpoint() as endpoint:
        endpoint.reply, endpoint.thought = (lambda body: (text, "stop")), thought
        for _ in range(2):  # the second comes from the journal
            with client_for(endpoint.url, tmp_path) as client:
                (reply,) = client.ask(questions(1))
                assert (reply.text, reply.reasoning) == ("At nine.", "Hm.")
        assert len(endpoint.received) == 1


def test_half_of_a_surrogate_pair_is_no_text(tmp_path: Path) -> None:
    """An endpoint's JSON may hold it; it is journaled as it came, and read as U+FFFD."""
    with Endpoint() as endpoint:
        endpoint.reply = lambda body: ("a \ud83d b", "stop")
        for _ in range(2):
            with client_for(endpoint.url, tmp_path) as client:
                (reply,) = client.ask(questions(1))
                assert reply.text == "a \ufffd b"
    assert len(endpoint.received) == 1


def test_short_prompts_do_not_tell_how_dense_long_ones_are(tmp_path: Path) -> None:
    """What an endpoint adds to a short prompt made it look as if each byte were a token."""
    short, long = (
        ChatRequest([{"role": "user", "content": text}], 0.5, 16, seed=1)
        for text in ("hello", "word " * 2_000)
    )
    with Endpoint() as endpoint:
        endpoint.usage = lambda body: (len(body["messages"][-1]["content"]) // 4 + 400, 1)
        with client_for(endpoint.url, tmp_path, context=4_000) as client:
            assert [reply.problem for reply in client.ask([short])] == [None]
            assert [reply.problem for reply in client.ask([long])] == [None]


def test_the_density_of_long_prompts_comes_back_from_the_journal(tmp_path: Path) -> None:
    """The second run drops the same prompts as the first one."""
    long, longer = (
        ChatRequest([{"role": "user", "content": "word " * count}], 0.5, 16, seed=1)
        for count in (4_000, 6_000)
    )
    with Endpoint() as endpoint:
        endpoint.usage = lambda body: (len(body["messages"][-1]["content"]) // 2, 1)
        for _ in range(2):
            with client_for(endpoint.url, tmp_path, context=11_000) as client:
                assert [reply.problem for reply in client.ask([long])] == [None]
                assert [reply.problem for reply in client.ask([longer])] == ["too long"]
        assert len(endpoint.received) == 1
