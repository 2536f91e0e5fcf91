"""Batches of both providers: submitted once whatever happens, collected, journaled, within a budget."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from anthropic_endpoint import AnthropicEndpoint
from chat_clients import client_for, questions
from openai_endpoint import Endpoint

from llmpipe.backends.anthropic import batch_api as anthropic_batches
from llmpipe.backends.anthropic.batch_api import AnthropicBatches
from llmpipe.backends.anthropic.chat_format import AnthropicFormat
from llmpipe.backends.ledger import Ledger
from llmpipe.backends.openai import batch
from llmpipe.backends.openai.batch import Batches
from llmpipe.backends.openai.batch_api import OpenAIBatches
from llmpipe.backends.openai.chat_format import OpenAIFormat
from llmpipe.backends.openai.client import MalformedReplyError
from llmpipe.backends.spending import Budget, BudgetReachedError
from llmpipe.errors import StageError

pytestmark = pytest.mark.heavy


@pytest.fixture(autouse=True)
def no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at batches without a pause."""
    monkeypatch.setattr(batch, "POLL", (0.01, 0.01))
    monkeypatch.setattr(anthropic_batches, "PAUSE", 0.01)


class Service:
    """A provider with batches, and clients of it that share a journal."""

    def __init__(self, endpoint: Any, folder: Path, name: str) -> None:
        self.endpoint, self.folder, self.name = endpoint, folder, name
        self.provider: Any = AnthropicBatches() if name == "anthropic" else OpenAIBatches()
        self.server = endpoint if name == "anthropic" else endpoint.batches

    def client(self, **options: Any) -> Any:
        """Open a client that asks in batches."""
        asked_format = AnthropicFormat() if self.name == "anthropic" else OpenAIFormat()
        return client_for(
            self.endpoint.url, self.folder, local=False, format=asked_format,
            batched=lambda client, asked: Batches(client, self.provider).ask(asked), **options
        )  # fmt: skip


@pytest.fixture(params=["openai", "anthropic"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """Each provider."""
    with AnthropicEndpoint() if request.param == "anthropic" else Endpoint() as endpoint:
        yield Service(endpoint, tmp_path, request.param)


def test_replies_come_from_one_batch_and_then_from_the_journal(service: Service) -> None:
    """In the order of the requests, whatever the order of the results; nothing is sent one by one."""
    with service.client() as client:
        first = client.ask(questions(5))
        assert client.ask(questions(5)) == first
        assert client.sent == 5
        client.ask(questions(7))
    assert len({reply.text for reply in first}) == 5
    assert [len(lines) for lines in service.server.submitted] == [5, 2]
    assert service.endpoint.received == []


class KilledError(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("moment", ["before", "after", "waiting"])
def test_a_killed_run_submits_nothing_twice(
    service: Service, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Killed before the batch was sent, before its id was known, and while it was awaited."""
    cls = type(service.provider)

    async def killed_at_submit(self: Any, api: Any, name: str, bodies: Any) -> str:
        if moment == "after":
            await submit(self, api, name, bodies)
        raise KilledError

    async def killed_at_look(self: Any, api: Any, batch: str) -> bool:
        raise KilledError

    submit = cls.submit
    with monkeypatch.context() as patch, service.client() as client:
        if moment == "waiting":
            patch.setattr(cls, "ended", killed_at_look)
        else:
            patch.setattr(cls, "submit", killed_at_submit)
        with pytest.raises(KilledError):
            client.ask(questions(4))
    with service.client() as client:
        assert len({reply.text for reply in client.ask(questions(6))}) == 6
    sent = [len(lines) for lines in service.server.submitted]
    assert sent == ([6] if moment == "before" else [4, 2])


def test_a_request_without_a_result_is_a_problem_and_sent_when_asked_again(
    service: Service,
) -> None:
    """The others of its batch are journaled."""
    service.server.expires = {"q1"}
    with service.client() as client:
        assert [reply.problem for reply in client.ask(questions(3))] == [None, "failed", None]
        service.server.expires = set()
        assert [reply.problem for reply in client.ask(questions(3))] == [None, None, None]
    assert [len(lines) for lines in service.server.submitted] == [3, 1]


def test_a_budget_holds_over_batches(service: Service) -> None:
    """A batch has only what fits at its worst; what the replies leave is used by the next one."""
    with service.client(ledger=Ledger(None, Budget(requests=4))) as client:
        with pytest.raises(BudgetReachedError, match="4 requests is reached"):
            client.ask(questions(6))
        assert client.sent == 4
    assert sum(len(lines) for lines in service.server.submitted) == 4


def test_a_batch_that_is_refused_as_a_whole_is_named(tmp_path: Path) -> None:
    """OpenAI checks the file when the batch begins."""
    with Endpoint() as endpoint:
        endpoint.batches.fails = "the model does not support batches"
        with (
            Service(endpoint, tmp_path, "openai").client() as client,
            pytest.raises(StageError, match="refuses the batch batch_0: the model does not"),
        ):
            client.ask(questions(2))


def test_a_refused_batch_is_submitted_again_by_the_next_run(tmp_path: Path) -> None:
    """A limit that was reached passes: the journal does not hold the stage at the dead batch."""
    with Endpoint() as endpoint:
        service = Service(endpoint, tmp_path, "openai")
        endpoint.batches.fails = "Enqueued token limit reached"
        with service.client() as client, pytest.raises(StageError, match="limit reached"):
            client.ask(questions(2))
        endpoint.batches.fails = ""
        with service.client() as client:
            assert [reply.problem for reply in client.ask(questions(2))] == [None, None]
        assert len(endpoint.batches.submitted) == 2


def test_a_list_that_cannot_be_read_submits_nothing_twice(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch whose id never came may be there: only the provider's list says that it is not."""
    cls = type(service.provider)
    submit = cls.submit

    async def killed(self: Any, api: Any, name: str, bodies: Any) -> str:
        await submit(self, api, name, bodies)
        raise KilledError

    async def unreadable(self: Any, api: Any, name: str, sent: Any) -> str | None:
        raise MalformedReplyError("a page")

    with monkeypatch.context() as patch, service.client() as client:
        patch.setattr(cls, "submit", killed)
        with pytest.raises(KilledError):
            client.ask(questions(3))
    with monkeypatch.context() as patch, service.client() as client:
        patch.setattr(cls, "find", unreadable)
        with pytest.raises(StageError, match="cannot be read: a page") as caught:
            client.ask(questions(3))
    assert caught.value.hint is not None
    assert "run again to go on waiting" in caught.value.hint
    assert "--resample STAGE" in caught.value.hint  # the way out when the provider has lost it
    with service.client() as client:
        assert len(client.ask(questions(3))) == 3
    assert len(service.server.submitted) == 1


def test_a_batch_that_ends_without_results_is_not_submitted_without_end(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some providers end a cancelled batch so; its requests have failed."""

    async def nothing(self: Any, api: Any, batch: str) -> AsyncIterator[tuple[str, Any]]:
        for result in ():
            yield result

    monkeypatch.setattr(type(service.provider), "results", nothing)
    with service.client() as client:
        (reply, _) = client.ask(questions(2))
    assert (reply.problem, reply.detail) == ("failed", "no result in its batch")
    assert len(service.server.submitted) == 1
