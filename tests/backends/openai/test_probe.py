"""What an endpoint does not obey is found by a few tiny requests, said, and asked for otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chat_clients import client_for, error, questions
from openai_endpoint import Answer, Endpoint

from llmpipe.backends.ledger import Ledger
from llmpipe.backends.openai.chat import ChatRequest
from llmpipe.backends.openai.chat_requests import Abilities
from llmpipe.backends.openai.probe import probe_endpoint
from llmpipe.backends.spending import Budget, BudgetReachedError
from llmpipe.errors import StageError

pytestmark = pytest.mark.heavy

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
ASKED = ChatRequest(CHAT, 0.5, 16, 1, schema={"type": "object"})


def probed(endpoint: Endpoint, folder: Path, *requires: str) -> tuple[Abilities, list[str]]:
    """Probe an endpoint, and ask it for something; return what was found and said."""
    told: list[str] = []
    with client_for(endpoint.url, folder, local=False) as client:
        probe_endpoint(client, frozenset(requires), told.append)
        client.ask([ASKED])
        return client.format.abilities, told


def test_an_endpoint_that_obeys_is_asked_four_times_and_once(tmp_path: Path) -> None:
    """Nothing is said, requests are as they were, and the journal knows the answers."""
    with Endpoint() as endpoint:
        for _ in range(2):
            found, told = probed(endpoint, tmp_path)
            assert told == []
        assert found == Abilities(logprobs="yes", many="yes")
        assert len(endpoint.probes) == 4
        (body,) = endpoint.received
    assert body["messages"] == CHAT
    assert body.keys() >= {"seed", "temperature", "max_tokens", "response_format"}


def test_what_is_ignored_is_asked_for_in_words(tmp_path: Path) -> None:
    """Schema and system message become text; a seed changes nothing, and that is said."""
    with Endpoint() as endpoint:
        endpoint.obeys = {"max_tokens", "usage"}
        found, told = probed(endpoint, tmp_path)
        (body,) = endpoint.received
    assert found == Abilities(
        schema="ignored", seed="ignored", system="ignored", logprobs="ignored", many="ignored"
    )
    assert [
        word in message for word, message in zip(("format", "system", "seed"), told, strict=True)
    ]
    assert "response_format" not in body
    (message,) = body["messages"]
    assert message["content"].startswith("Be brief.\n\nWhy?\n\nReply with one JSON object")


def test_what_is_refused_is_found_field_by_field(tmp_path: Path) -> None:
    """An endpoint that refuses fields by name gets requests without them."""
    with Endpoint() as endpoint:
        endpoint.refuses = {"seed", "n", "max_tokens", "temperature", "system", "response_format"}
        found, told = probed(endpoint, tmp_path)
        (body,) = endpoint.received
    assert found == Abilities(
        schema="refused", seed="refused", system="refused", temperature="refused",
        logprobs="yes", many="refused", limit_field="max_completion_tokens",
    )  # fmt: skip
    assert len(told) == 4
    assert body.keys() == {"model", "messages", "max_completion_tokens"}


def test_what_a_stage_needs_stops_it(tmp_path: Path) -> None:
    """Nothing but the probe was sent."""
    with Endpoint() as endpoint:
        endpoint.obeys -= {"max_tokens"}
        with pytest.raises(StageError, match=r"does not obey what this stage needs: max_tokens"):
            probed(endpoint, tmp_path, "max_tokens")
        assert endpoint.received == []


def test_a_page_is_no_endpoint(tmp_path: Path) -> None:
    """A wrong base_url that answers 200 with a page is named before anything else."""
    with Endpoint() as endpoint:
        endpoint._probed = lambda body: (200, b"<html>Welcome</html>", {})  # type: ignore[method-assign]
        with pytest.raises(StageError, match=r"malformed reply") as caught:
            probed(endpoint, tmp_path)
    assert "usually ends in /v1" in str(caught.value.hint)


def test_the_probe_counts_in_the_budget(tmp_path: Path) -> None:
    """Its requests are paid for like all others."""
    with (
        Endpoint() as endpoint,
        client_for(endpoint.url, tmp_path, ledger=Ledger(None, Budget(requests=5))) as client,
    ):
        probe_endpoint(client, frozenset(), print)
        with pytest.raises(BudgetReachedError):
            client.ask(questions(2))
        assert len(endpoint.probes) == 4
        assert len(endpoint.answered) == 1


def test_what_the_journal_answers_needs_no_probe(tmp_path: Path) -> None:
    """The preparation runs once, before the first request that is sent, and never without one."""
    told: list[str] = []
    with Endpoint() as endpoint:
        for number in (1, 1, 2):
            with client_for(
                endpoint.url, tmp_path, prepare=lambda _: told.append("probe")
            ) as client:
                client.ask(questions(number))
                client.ask(questions(number))
    assert told == ["probe", "probe"]


@pytest.mark.parametrize("answered", [0, 1])
def test_an_account_that_is_empty_is_no_nature_of_an_endpoint(
    tmp_path: Path, answered: int
) -> None:
    """It refuses everything, from the first probe or from the second; later it is charged up."""
    with Endpoint() as endpoint:
        obeying = endpoint._probed

        def empty(body: dict[str, Any]) -> Answer:
            if len(endpoint.probes) > answered:
                return error(400, "Your credit balance is too low")
            return obeying(body)

        endpoint._probed = empty  # type: ignore[method-assign]
        with client_for(endpoint.url, tmp_path, local=False) as client:
            if answered:
                probe_endpoint(client, frozenset(), print)
            else:
                with pytest.raises(StageError, match="credit balance is too low"):
                    probe_endpoint(client, frozenset(), print)
        endpoint._probed = obeying  # type: ignore[method-assign]
        found, told = probed(endpoint, tmp_path)
    assert (found, told) == (Abilities(logprobs="yes", many="yes"), [])


def test_a_refusal_before_an_answer_is_known_the_next_time(tmp_path: Path) -> None:
    """What the endpoint has refused and then answered without is its nature."""
    with Endpoint() as endpoint:
        endpoint.refuses = {"seed"}
        for count in (8, 8):
            found, _ = probed(endpoint, tmp_path)
            assert found.seed == "refused"
            assert len(endpoint.probes) == count


def test_a_model_that_takes_only_its_own_temperature_gets_none(tmp_path: Path) -> None:
    """Reasoning models take 1.0, their default, and refuse all others."""
    with Endpoint() as endpoint:
        obeying = endpoint._probed

        def reasoning(body: dict[str, Any]) -> Answer:
            if body.get("temperature", 1.0) != 1.0:
                return error(400, "Only the default (1) value is supported")
            return obeying(body)

        endpoint._probed = reasoning  # type: ignore[method-assign]
        found, _ = probed(endpoint, tmp_path)
        (body,) = endpoint.received
    assert found.temperature == "refused"
    assert "temperature" not in body
