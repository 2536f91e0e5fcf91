"""A teacher behind Anthropic's API, through its SDK, against a server that speaks the protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from anthropic_endpoint import AnthropicEndpoint, failure
from chat_clients import client_for, questions
from openai_endpoint import Answer

from llmpipe.backends.anthropic.chat_format import AnthropicFormat
from llmpipe.backends.ledger import Ledger
from llmpipe.backends.openai import client as api_client
from llmpipe.backends.openai import throttle
from llmpipe.backends.openai.chat import ChatRequest
from llmpipe.backends.openai.probe import probe_endpoint
from llmpipe.backends.spending import Budget, Price
from llmpipe.errors import StageError

pytestmark = pytest.mark.heavy

SCHEMA = {"type": "object", "properties": {"instruction": {"type": "string"}}}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the pauses between attempts short."""
    monkeypatch.setattr(api_client, "BACK_OFF", (0.01, 0.01, 0.01, 0.01))
    monkeypatch.setattr(throttle, "COOL_DOWN", 0.05)


def client(endpoint: AnthropicEndpoint, folder: Path, **options: Any) -> Any:
    """Open a client of the endpoint."""
    options = {"local": False, "api_key": "k3y", "format": AnthropicFormat(), **options}
    return client_for(endpoint.url, folder, **options)


def test_a_chat_with_a_system_message(tmp_path: Path) -> None:
    """System texts have a field of their own; key, usage and cached tokens are the API's."""
    ledger = Ledger(Price(input=3, output=15, cached_input=0.3), Budget(money=1))
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why not?"}]
    with AnthropicEndpoint() as endpoint:
        endpoint.cached = 5
        with client(endpoint, tmp_path, ledger=ledger) as asked:
            (reply,) = asked.ask([ChatRequest(messages, 0.5, 16, 1)])
    (body,) = endpoint.received
    assert body["system"] == "Be brief."
    assert body["messages"] == messages[1:]
    assert (body["temperature"], body["max_tokens"], body["model"]) == (0.5, 16, "m")
    assert "seed" not in body
    assert endpoint.headers[0]["authorization"] == "Bearer k3y"
    assert reply.text.startswith("Item ")
    assert reply.tokens == 7
    assert ledger.metrics()["tokens"] == {"input": 9, "cached_input": 5, "output": 7}
    assert ledger.metrics()["usd"] == pytest.approx((4 * 3 + 5 * 0.3 + 7 * 15) / 1e6)


def test_a_schema_is_asked_for_as_a_tool(tmp_path: Path) -> None:
    """The tool's input is the reply; thinking before it stands apart."""
    with AnthropicEndpoint() as endpoint, client(endpoint, tmp_path) as asked:
        endpoint.thinking = "Hm."
        request = ChatRequest([{"role": "user", "content": "q"}], 0, 16, 1, schema=SCHEMA)
        (reply,) = asked.ask([request])
        assert asked.ask([request]) == [reply]  # from the journal
    (body,) = endpoint.received
    assert body["tools"][0]["input_schema"] == SCHEMA
    assert body["tool_choice"] == {"type": "tool", "name": body["tools"][0]["name"]}
    assert json.loads(reply.text)["instruction"].startswith("Explain item")
    assert reply.reasoning == "Hm."


@pytest.mark.parametrize(
    ("stop_reason", "truncated", "problem"),
    [
        ("max_tokens", True, None),
        ("model_context_window_exceeded", True, None),
        ("refusal", False, "refused"),
        ("end_turn", False, None),
    ],
)
def test_why_a_reply_ends(
    tmp_path: Path, stop_reason: str, truncated: bool, problem: str | None
) -> None:
    """A limit is a truncated reply; a refusal is a problem, and not paid for twice."""
    with AnthropicEndpoint() as endpoint, client(endpoint, tmp_path) as asked:
        endpoint.stop_reason = stop_reason
        for _ in range(2):
            (reply,) = asked.ask(questions(1))
            assert (reply.truncated, reply.problem) == (truncated, problem)
    assert len(endpoint.received) == 1


def test_an_overloaded_api_is_asked_again(tmp_path: Path) -> None:
    """529 and 429 wait as Retry-After says, 500 is tried again, a long prompt is its row's problem."""

    def before(body: dict[str, Any], number: int) -> Answer | None:
        if number <= 2:
            return failure(529, "overloaded_error", "Overloaded", retry_after="0.1")
        if number == 3:
            return failure(429, "rate_limit_error", "Slow down")
        if number == 4:
            return failure(500, "api_error", "Internal server error")
        if body["messages"][0]["content"] == "q3":
            return failure(400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum")
        return None

    with AnthropicEndpoint(before) as endpoint, client(endpoint, tmp_path) as asked:
        replies = asked.ask(questions(6))
    assert [reply.problem for reply in replies] == [None, None, None, "too long", None, None]
    assert len(endpoint.received) == 10


def test_a_refused_key_is_not_shown(tmp_path: Path) -> None:
    """The error names the field and hides the key."""

    def before(body: dict[str, Any], number: int) -> Answer | None:
        return failure(401, "authentication_error", "invalid x-api-key: k3y")

    with (
        AnthropicEndpoint(before) as endpoint,
        client(endpoint, tmp_path) as asked,
        pytest.raises(StageError, match=r"refuses the API key: .*\[key\]"),
    ):
        asked.ask(questions(1))


def test_the_probe_asks_three_times(tmp_path: Path) -> None:
    """What the API does not have is not asked for; what it refuses is left out, and said."""
    told: list[str] = []
    with AnthropicEndpoint() as endpoint:
        endpoint.refuses = {"temperature"}
        for _ in range(2):
            with client(endpoint, tmp_path) as asked:
                probe_endpoint(asked, frozenset({"schema", "system"}), told.append)
                found = asked.format.abilities
                asked.ask(questions(1))
        assert (found.schema, found.system, found.usage) == ("yes", "yes", "yes")
        assert (found.temperature, found.seed) == ("refused", "refused")
        assert len(endpoint.probes) == 3
        assert "temperature" not in endpoint.received[0]
    assert [message.partition(" ")[2].partition("` ")[0] for message in told]
    assert all("refuses `temperature`" in message for message in told)
    assert len(told) == 2
