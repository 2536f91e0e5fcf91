"""Budgets hold with requests in flight, over killed runs, and at lost replies; what is paid is kept."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from chat_clients import client_for, error, questions
from hypothesis import given
from hypothesis import strategies as st
from openai_endpoint import Answer, Endpoint

from llmpipe.backends.ledger import Ledger, prompt_bound
from llmpipe.backends.openai.chat_requests import ChatRequest
from llmpipe.backends.spending import Budget, BudgetReachedError, Price, Usage
from llmpipe.errors import StageError

pytestmark = pytest.mark.heavy

PRICE = Price(input=2.0, output=10.0)


def billed(endpoint: Endpoint) -> float:
    """Return what the endpoint charges for its answers: it counts a token in and one out."""
    return len(endpoint.answered) * PRICE.of(Usage(1, 1))


def greedy_endpoint(pause: float = 0.0) -> Endpoint:
    """Return an endpoint whose replies use every token that a request allows."""
    endpoint = Endpoint(lambda body, number: time.sleep(pause))  # type: ignore[func-returns-value]
    endpoint.usage = lambda body: (
        prompt_bound(body["messages"], None), body["max_tokens"]
    )  # fmt: skip
    return endpoint


@pytest.mark.parametrize("concurrency", [1, 8])
def test_money_is_never_exceeded_with_requests_in_flight(tmp_path: Path, concurrency: int) -> None:
    """Every reply costs its worst case: the last request that fits is sent, and not one more."""
    (request, *_) = questions(1)
    each = PRICE.of(Usage(prompt_bound(request.messages, None), 16))
    with greedy_endpoint(0.02) as endpoint:
        ledger = Ledger(PRICE, Budget(money=each * 10.5))
        with (
            client_for(endpoint.url, tmp_path, ledger=ledger, concurrency=concurrency) as client,
            pytest.raises(BudgetReachedError, match=r"the budget of .* USD is reached"),
        ):
            client.ask(questions(40))
        assert len(endpoint.answered) == 10
        paid = len((tmp_path / "replies.jsonl").read_text().splitlines()) - len(endpoint.answered)
        assert paid == len(endpoint.answered)  # a note and a reply for each


def test_a_raised_budget_goes_on(tmp_path: Path) -> None:
    """The journal's replies count against it, and are not sent again."""
    with Endpoint() as endpoint:
        for limit, answered in ((5, 5), (5, 5), (12, 12)):
            with (
                client_for(
                    endpoint.url, tmp_path, ledger=Ledger(None, Budget(requests=limit))
                ) as c,
                pytest.raises(BudgetReachedError, match=f"{limit} requests is reached"),
            ):
                c.ask(questions(20))
            assert len(endpoint.answered) == answered
        with client_for(endpoint.url, tmp_path, ledger=Ledger(None, Budget(requests=20))) as client:
            assert len(client.ask(questions(20))) == 20
        assert len(endpoint.answered) == 20


def test_tokens_and_money_are_those_reported(tmp_path: Path) -> None:
    """Cached tokens have a price of their own; the second run adds nothing."""
    price = Price(input=2.0, output=10.0, cached_input=0.5)
    with Endpoint() as endpoint:
        endpoint.usage = lambda body: (100, 7)
        endpoint.cached = 40
        for new in (True, False):
            ledger = Ledger(price, Budget(money=1))
            with client_for(endpoint.url, tmp_path, ledger=ledger) as client:
                client.ask(questions(10))
            each = (60 * 2 + 40 * 0.5 + 7 * 10) / 1e6
            found = ledger.metrics()
            assert found["tokens"] == {"input": 1000, "cached_input": 400, "output": 70}
            assert found["usd"] == pytest.approx(10 * each)
            assert found["usd_new"] == pytest.approx(10 * each if new else 0)


def test_without_usage_the_worst_case_counts_and_is_said(tmp_path: Path) -> None:
    """An endpoint that reports no tokens cannot make a budget hold for longer."""
    worst = prompt_bound(questions(1)[0].messages, None) + 16
    with Endpoint() as endpoint:
        endpoint.usage = lambda body: None
        ledger = Ledger(None, Budget(tokens=3 * worst + 10))
        with (
            client_for(endpoint.url, tmp_path, ledger=ledger) as client,
            pytest.raises(BudgetReachedError),
        ):
            client.ask(questions(9))
        assert len(endpoint.answered) == 3
        assert ledger.metrics()["replies_without_usage"] == 3


def test_a_refused_request_costs_nothing_and_a_lost_one_its_worst_case(tmp_path: Path) -> None:
    """A 429 is free; a reply that never comes may have been billed."""

    def before(body: dict[str, Any], number: int) -> Answer | None:
        if number in (1, 2):
            return error(429, "slow down")
        if number == 3:
            time.sleep(1.5)
        return None

    with Endpoint(before) as endpoint:
        ledger = Ledger(None, Budget(requests=3))
        with client_for(endpoint.url, tmp_path, ledger=ledger, timeout=0.5) as client:
            client.ask(questions(2))
        assert ledger.lost == 1
        ledger = Ledger(None, Budget(requests=3))
        with (
            client_for(endpoint.url, tmp_path, ledger=ledger) as client,
            pytest.raises(BudgetReachedError),
        ):
            client.ask(questions(3))


ASK = """
import sys
from pathlib import Path
from llmpipe.backends.ledger import Ledger
from llmpipe.backends.openai.journal import Journal
from llmpipe.backends.openai.chat import ChatClient, ChatRequest
from llmpipe.backends.spending import Budget
with Journal(Path(sys.argv[2])) as journal, ChatClient(
    sys.argv[1], "m", {"model": "m"}, journal, concurrency=4, local=True,
    ledger=Ledger(None, Budget(requests=30)),
) as client:
    client.ask([ChatRequest([{"role": "user", "content": f"q{i}"}], 0.5, 16, i) for i in range(50)])
"""


def test_requests_in_flight_at_a_kill_count(tmp_path: Path) -> None:
    """Killed twice, the endpoint has received no more requests than the budget allows."""
    with Endpoint(lambda body, number: time.sleep(0.1)) as endpoint:  # type: ignore[func-returns-value]
        command = [sys.executable, "-c", ASK, endpoint.url, str(tmp_path)]
        for kill in range(2):
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as client:
                while len(endpoint.received) < 5 * (kill + 1):
                    assert client.poll() is None
                    time.sleep(0.01)
                os.kill(client.pid, signal.SIGKILL)
        last = subprocess.run(command, capture_output=True, text=True)
        assert "BudgetReachedError: the budget of 30 requests is reached" in last.stderr
        assert 20 <= len(endpoint.received) <= 30  # those killed before they were sent count too


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50), st.booleans()), max_size=40),
    st.integers(1, 400),
    st.integers(1, 6),
)
def test_no_order_of_replies_exceeds_a_budget(
    requests: list[tuple[int, int, bool]], limit: int, places: int
) -> None:
    """Whatever the replies take, up to their worst case, and in whatever order they come."""
    ledger = Ledger(None, Budget(tokens=limit))
    billed = 0

    async def one(free: asyncio.Semaphore, bound: int, share: int, known: bool) -> None:
        nonlocal billed
        async with free:
            worst = Usage(bound, bound)
            try:
                number = await ledger.reserve(worst)
            except BudgetReachedError:
                return
            for _ in range(share % 5):
                await asyncio.sleep(0)
            used = Usage(min(share, bound), min(share, bound))
            billed += used.input + used.output
            ledger.settle(number, worst, used if known else None)
            assert billed <= limit

    async def all_of_them() -> None:
        free = asyncio.Semaphore(places)
        await asyncio.gather(*(one(free, *request) for request in requests))

    asyncio.run(all_of_them())


def test_a_bound_is_no_less_than_any_tokenizer_on_bytes_counts() -> None:
    """Each byte is at most one token, whatever the script; a template's own words are allowed for."""
    text = "Größe 北京 🙂 \x00" * 20
    request = ChatRequest([{"role": "user", "content": text}], 0, 1, 0)
    assert prompt_bound(request.messages, None) >= len(text.encode()) + 256
    assert prompt_bound(request.messages, {"type": "object"}) >= len(text.encode()) + 1024


@pytest.mark.parametrize(("status", "costs"), [(500, False), (503, False), (408, True), (502, True), (504, True), (524, True)])  # fmt: skip
def test_what_a_proxy_cuts_may_be_billed(tmp_path: Path, status: int, costs: bool) -> None:
    """The model goes on behind a proxy that gave up; the next run counts it too."""
    with Endpoint(lambda b, n: error(status, "cut") if n == 1 else None) as endpoint:
        for _ in range(2):
            ledger = Ledger(PRICE, Budget(money=1))
            with client_for(endpoint.url, tmp_path, ledger=ledger) as client:
                (reply,) = client.ask(questions(1))
            assert reply.problem is None
            assert ledger.lost == costs
            assert ("usd_at_most" in ledger.metrics()) == costs
        assert len(endpoint.received) == 2


def test_what_was_never_sent_takes_nothing_from_the_next_run(tmp_path: Path) -> None:
    """No endpoint listens: the budget of one request is still there when one does."""
    with Endpoint() as endpoint:
        for url in ("http://127.0.0.1:9/v1", endpoint.url):
            ledger = Ledger(None, Budget(requests=1))
            with client_for(url, tmp_path, ledger=ledger) as client:
                if url == endpoint.url:
                    assert [reply.problem for reply in client.ask(questions(1))] == [None]
                else:
                    with pytest.raises(StageError, match="cannot reach the teacher"):
                        client.ask(questions(1))
            assert ledger.lost == 0


def test_equal_requests_are_sent_and_counted_once(tmp_path: Path) -> None:
    """Together, later, and in the next run: one reply is paid for, and it counts once."""
    one, other = questions(2)
    with Endpoint(lambda body, number: time.sleep(0.05)) as endpoint:  # type: ignore[func-returns-value]
        for sent in (2, 0):
            told: list[int | None] = []
            ledger = Ledger(PRICE, Budget(requests=2))
            with client_for(endpoint.url, tmp_path, ledger=ledger, on_reply=told.append) as client:
                first, second, third = client.ask([one, other, one])
                assert first == third != second
                assert client.ask([other, one]) == [second, first]
                assert client.sent == sent
            assert len(told) == 5
            assert ledger.told().startswith("2 requests, 4 tokens")
        assert len(endpoint.received) == 2
    for _ in range(2):
        ledger = Ledger(None, Budget(requests=2))
        with client_for(endpoint.url, tmp_path, ledger=ledger) as client:
            client.ask([one, other])
        assert ledger.lost == 0


def test_a_cost_that_is_not_known_is_not_called_zero(tmp_path: Path) -> None:
    """An endpoint that reports no tokens gives an upper bound of the money."""
    with Endpoint() as endpoint:
        endpoint.usage = lambda body: None
        ledger = Ledger(PRICE)
        with client_for(endpoint.url, tmp_path, ledger=ledger) as client:
            client.ask(questions(2))
    found = ledger.metrics()
    assert found["usd_at_most"] >= 2 * PRICE.of(Usage(0, 16))
    assert not {"usd", "usd_new"} & found.keys()
