"""Beginnings that prompts share: computed once, and no reply is another one for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from llmpipe.backends.llama_cpp.client import LlamaServer
from llmpipe.backends.llama_cpp.prefixes import Prefixes
from llmpipe.backends.llama_cpp.serve import serve_gguf
from llmpipe.backends.openai.chat import ChatClient, ChatRequest
from llmpipe.backends.openai.journal import Journal

pytestmark = pytest.mark.heavy

EXAMPLES = [
    {"role": "user", "content": "Say it backwards: one two three"},
    {"role": "assistant", "content": "three two one"},
]
OTHERS = [
    {"role": "user", "content": "Add a colour: a house"},
    {"role": "assistant", "content": "a red house"},
]


def request(question: str, before: Sequence[dict[str, str]], *, shared: bool) -> ChatRequest:
    """Ask something behind worked examples."""
    turn = {"role": "user", "content": question}
    return ChatRequest([*before, turn], 0.8, 12, seed=3, shared=len(before) if shared else 0)


def requests(*, shared: bool) -> list[ChatRequest]:
    """Make six requests with two beginnings, in turn."""
    words = ("red sun", "blue moon and stars", "a b c")
    return [
        request(f"{task}: {word}", before, shared=shared)
        for word in words
        for task, before in (("Say it backwards", EXAMPLES), ("Add a colour", OTHERS))
    ]


@pytest.fixture
def server(smollm2_gguf: Path, tmp_path: Path) -> Iterator[LlamaServer]:
    """A server that keeps beginnings of prompts."""
    folder = tmp_path / "prompts"
    folder.mkdir()
    with serve_gguf(smollm2_gguf, threads=1, context=256, slots=2, slots_folder=folder) as running:
        yield running


@contextmanager
def client(server: LlamaServer, journal: Path, concurrency: int = 1) -> Iterator[ChatClient]:
    """Open a client with a journal of its own."""
    with Journal(journal) as replies, ChatClient(
        f"{server.url}/v1", server.model, {}, replies, concurrency,
        api_key=server.api_key or "", local=True, prefixes=Prefixes(server.url, concurrency),
    ) as opened:  # fmt: skip
        yield opened


def test_replies_do_not_depend_on_what_was_asked_before(
    server: LlamaServer, tmp_path: Path
) -> None:
    """In this order or the other way round; each beginning is kept once, several at once, too."""
    with client(server, tmp_path / "one") as asked:
        said = asked.ask(requests(shared=True))
    with client(server, tmp_path / "backwards") as asked:
        assert asked.ask(requests(shared=True)[::-1])[::-1] == said
    with client(server, tmp_path / "two", concurrency=2) as asked:
        together = asked.ask(requests(shared=True))
    assert all(reply.text for reply in [*said, *together])
    assert len(list((tmp_path / "prompts").iterdir())) == 2


def test_only_what_is_new_is_computed(server: LlamaServer) -> None:
    """From the third request on, all but the beginning: the server says how much it computed."""

    async def computed() -> list[tuple[int, int]]:
        prefixes, found = Prefixes(server.url, 1), []
        api = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.api_key)
        for asked in requests(shared=True):
            body: dict[str, Any] = {"model": server.model, "messages": asked.messages}
            async with prefixes.begun(api, asked.messages[: asked.shared]) as extra:
                reply = await api.chat.completions.create(**body, max_tokens=1, extra_body=extra)
            timings = (reply.model_extra or {})["timings"]
            found.append((timings["cache_n"], timings["prompt_n"]))
        return found

    counts = asyncio.run(computed())
    assert len({reused for reused, _ in counts}) == 2  # as many as there are beginnings
    assert all(reused > 20 > new for reused, new in counts)


def test_a_beginning_that_is_gone_is_computed_each_time(
    server: LlamaServer, tmp_path: Path
) -> None:
    """So is one that is longer than the context: neither is a reason to fail."""
    with client(server, tmp_path / "journal") as asked:
        (first,) = asked.ask([request("Add a colour: a tree", OTHERS, shared=True)])
        for file in (tmp_path / "prompts").iterdir():
            file.unlink()
        again = request("Add a colour: a boat", OTHERS, shared=True)
        long = request("Say it backwards: x", [*EXAMPLES * 40], shared=True)
        second, third = asked.ask([again, long])
    assert (first.problem, second.problem, third.problem) == (None, None, "too long")
    with client(server, tmp_path / "whole") as asked:
        assert asked.ask([request("Add a colour: a boat", OTHERS, shared=False)]) == [second]


def test_what_cannot_be_kept_is_tried_once(
    server: LlamaServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A full disk must not make every request dearer; it is logged."""
    (tmp_path / "prompts").rmdir()
    tried = []
    compute = Prefixes._compute

    async def counted(*given: Any) -> None:
        tried.append(given)
        await compute(*given)

    monkeypatch.setattr(Prefixes, "_compute", counted)
    with client(server, tmp_path / "journal") as asked:
        replies = asked.ask(requests(shared=True))
    assert [reply.problem for reply in replies] == [None] * 6
    assert len(tried) == 2
    assert caplog.text.count("is computed again each time") == 2


def test_an_interruption_waits_for_nothing(server: LlamaServer, tmp_path: Path) -> None:
    """What a cancelled request held is free again, also while the beginning is computed."""

    async def interrupted() -> float:
        prefixes = Prefixes(server.url, 1)
        api = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.api_key)

        async def hold(messages: list[dict[str, str]]) -> None:
            async with prefixes.begun(api, messages):
                pass

        task = asyncio.create_task(hold(EXAMPLES * 6))
        await asyncio.sleep(0.05)
        begun = time.monotonic()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        waited = time.monotonic() - begun
        await asyncio.wait_for(hold(OTHERS), 60)
        return waited

    assert asyncio.run(interrupted()) < 0.5
