"""Beginnings that prompts share: computed once, and no reply is another one for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from llmpipe.backends.journal import Journal
from llmpipe.backends.llama_cpp import serve_gguf
from llmpipe.backends.llama_cpp_client import LlamaServer
from llmpipe.backends.llama_cpp_prefixes import Prefixes
from llmpipe.backends.openai_api import ChatClient, ChatReply, ChatRequest

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
        api_key=server.api_key or "", local=True, prefixes=Prefixes(server, concurrency),
    ) as opened:  # fmt: skip
        yield opened


def test_replies_are_those_of_whole_prompts(server: LlamaServer, tmp_path: Path) -> None:
    """In this order, the other way round, and several at once; each beginning is kept once."""
    said: list[list[ChatReply]] = []
    for name, concurrency in (("whole", 1), ("one", 1), ("two", 2)):
        with client(server, tmp_path / name, concurrency) as asked:
            said.append(asked.ask(requests(shared=name != "whole")))
        assert len(list((tmp_path / "prompts").iterdir())) == (0 if name == "whole" else 2)
    with client(server, tmp_path / "backwards") as asked:
        said.append(asked.ask(requests(shared=True)[::-1])[::-1])
    assert all(reply.text for reply in said[0])
    assert said[0] == said[1] == said[2] == said[3]


def test_only_what_is_new_is_computed(
    server: LlamaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two beginnings are computed, and four times one of them is taken up again."""
    called: list[str] = []
    for name in ("keep_prefix", "restore_prefix"):
        method = getattr(LlamaServer, name)

        def counted(*args: object, name: str = name, method: object = method) -> None:
            called.append(name)
            method(*args)  # type: ignore[operator]

        monkeypatch.setattr(LlamaServer, name, counted)
    with client(server, tmp_path / "journal") as asked:
        asked.ask(requests(shared=True))
    assert called == ["keep_prefix", "keep_prefix", *["restore_prefix"] * 4]


def test_what_cannot_be_kept_is_computed_each_time(server: LlamaServer, tmp_path: Path) -> None:
    """A beginning that is gone, or longer than the context, is no reason to fail with."""
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
