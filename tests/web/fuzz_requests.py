"""Send damaged requests to a service for a while: no traceback, no delay for others, no growth.

This is a separate program: ``python fuzz_requests.py SECONDS FOLDER rag|GGUF``. It starts a service
in a process of its own, over a small index or over a GGUF, and sends it requests and bytes of all
kinds from several threads. Another thread sends sound requests and measures how long they take. It
prints how many requests were sent, by the status of the answer, the longest delay of the sound ones
and the growth of the service's memory.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from mutations import VALUES, bytes_changed, tree_changed

MAX_SECONDS, MAX_SECONDS_BESIDE_TESTS = 1.0, 10.0
"""Seconds that a sound request may take, waits for a processor of this machine not counted. Other
tests that run at the same time compete for memory and disk, which cannot be subtracted."""
ALONE = 60.0
"""Seconds of fuzzing from which on it is taken to have the machine for itself."""
MAX_GROWTH = 150_000_000
"""Bytes that the service may grow by after the first requests."""
LEAST = 30
"""Requests that are sent on the slowest machine, too."""
THREADS = 3
PATIENCE = 10.0
"""Seconds that an answer is waited for."""
FINE = {200, 400, 403, 404, 405, 413, 421, 431, 501, 503}
"""The statuses that a damaged request may be answered with."""

CHAT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi.", "tool_calls": [], "refusal": None},
        {"role": "user", "content": [{"type": "text", "text": "When does the kiosk open?"}]},
    ],
    "model": "answers", "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 4,
    "temperature": 0.5, "top_p": 1, "seed": 1, "stop": ["x"], "response_format": {"type": "text"},
    "logit_bias": {"1": 1}, "n": 1,
}  # fmt: skip
TOOLS: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3, "temperature": 0,
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object",
               "properties": {"a": {"type": "string", "pattern": "^a+$"}}}}}],
    "tool_choice": "none",
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {
        "type": "object", "properties": {"a": {"enum": [1, "b"]}}, "required": ["a"]}}},
}  # fmt: skip
SEARCH: dict[str, Any] = {
    "query": "kiosk", "k": 3, "mode": "bm25",
    "filters": {"document": ["*.md", "rules/**"], "section": ["Rules"], "language": ["en", "de"],
                "length": {"min": 1, "max": 1e9}},
}  # fmt: skip
BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", TOOLS),
    ("/v1/search", SEARCH),
    ("/v1/completions", {"prompt": "Once", "max_tokens": 3, "logprobs": 2, "stop": "\n", "echo": False}),
    ("/v1/responses", {"input": "Hi", "max_output_tokens": 3, "text": {"format": {"type": "text"}}}),
    ("/completion", {"prompt": [1, 2, "a"], "n_predict": 2, "grammar": 'root ::= "a"', "n_probs": 1}),
    ("/tokenize", {"content": "Hello", "with_pieces": True, "add_special": False}),
    ("/detokenize", {"tokens": [1, 28, 2]}),
    ("/apply-template", {"messages": [{"role": "user", "content": "Hi"}]}),
]  # fmt: skip
"""Sound requests of both services: (path, body). One of them knows some of the paths alone."""
PATHS = [
    "/", "/health", "/metrics", "/v1/models", "/v1/models/answers", "/page.js", "/v1/documents/kiosk.md",
    "/v1/documents/kiosk.md?start=3&end=9", "/v1/documents/../../etc/passwd", "//", "/v1/documents/",
    "/v1/documents/%00", "/v1/documents/%ff%fe", "*", "http://evil/", "/v1/documents/a?start=%ff",
]  # fmt: skip
DEEP = "what is nested"
"""Stands for a value that is too deep for Python's encoder."""
LONG = [
    "a*" * 4000,
    "*" * 40,
    "[" * 30 + "a",
    "\\" * 999,
    "a" * 9000,
    "?" * 33,
    "\ud83d" * 10,
    "é" * 4000,
]


class Service:
    """A service in a process of its own; its log is in a file."""

    def __init__(self, folder: Path, what: str) -> None:
        self.log = folder / "log"
        with self.log.open("wb") as log:
            command = [sys.executable, __file__, "serve", str(folder), what]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        place = urlsplit(line.strip())
        self.host, self.port = str(place.hostname), int(place.port or 0)

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection((self.host, self.port), PATIENCE)

    def memory(self) -> int:
        """Return the bytes of memory that the process holds."""
        text = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(text.split()[1]) * 4096

    def waits(self) -> dict[str, float]:
        """Return the seconds that each of its threads, and this one, has waited for a processor."""
        tasks = [*Path(f"/proc/{self.process.pid}/task").iterdir(), Path("/proc/thread-self")]
        return {task.name: _run_delay(task) for task in tasks}

    def end(self) -> int:
        """End it as a user does; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def _run_delay(task: Path) -> float:
    with contextlib.suppress(OSError):
        return int((task / "schedstat").read_text().split()[1]) / 1e9
    return 0.0


def request(method: str, path: str, body: bytes, *headers: str) -> bytes:
    """Return the bytes of a request."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


def attack(number: int) -> tuple[str, bytes]:
    """Return what to send, and how: ``ask`` for an answer, or leave the connection in some state."""
    chance = random.Random(number)
    how = chance.choice(["body"] * 6 + ["path", "raw", "raw", "headers", "chunked"])
    path, body = chance.choice(BODIES)
    if how == "path":
        path = chance.choice(PATHS)
        if chance.random() < 0.5:
            path = "/v1/documents/" + quote(chance.randbytes(chance.randrange(1, 60)))
        method = chance.choice(
            ["GET", "GET", "GET", "POST", "HEAD", "OPTIONS", "DELETE", "TRACE", "x" * 99]
        )
        return "ask", request(method, path, b"", "Connection: close")
    text = json.dumps(body_changed(body, chance))
    levels, (begin, end) = chance.choice([50, 900, 20_000]), chance.choice(["[]", ('{"a":', "}")])
    data = text.replace(f'"{DEEP}"', begin * levels + "1" + end * levels).encode()
    if chance.random() < 0.1:
        data = bytes_changed(data, chance)
    if how == "body":
        return "ask", request("POST", path, data, "Connection: close")
    if how == "headers":
        return "ask", request("POST", path, data, *headers_of(chance))
    whole = request("POST", path, data, "Connection: close")
    if how == "chunked":
        whole = request("POST", path, b"", "Transfer-Encoding: chunked").replace(
            b"Content-Length: 0\r\n", b""
        )
        size = chance.choice(
            [b"%x" % len(data), b"-1", b"fffffffffffffffff", b"", b"g", b"1;" + b"x" * 5000]
        )
        whole += size + b"\r\n" + data + b"\r\n0\r\n\r\n"
    if how == "raw":
        head, _, rest = whole.partition(b"\r\n\r\n")
        whole = bytes_changed(head, chance) + b"\r\n\r\n" + rest
        if chance.random() < 0.2:
            whole = chance.randbytes(chance.randrange(1, 400))
    end = chance.choice(["ask", "half", "reset", "leave", "cut", "drip"])
    return end, whole


def body_changed(body: dict[str, Any], chance: random.Random) -> Any:
    """Return a body in which a few values are others, or are long, deep or many."""
    changed: Any = json.loads(json.dumps(body))
    for _ in range(chance.choice([0, 1, 1, 2, 3])):
        if not isinstance(changed, dict) or not changed:
            return changed
        how = chance.random()
        name = chance.choice(list(changed))
        if how < 0.6:
            changed = tree_changed(changed, chance)
        elif how < 0.7:
            changed[name] = chance.choice(LONG)
        elif how < 0.8:
            changed[name] = [chance.choice(VALUES)] * chance.choice([1, 1000, 30_000])
        elif how < 0.9 and isinstance(changed.get("filters"), dict):
            changed["filters"] = {chance.choice(["document", "section", "language", "x"]): [
                chance.choice(LONG) for _ in range(chance.choice([1, 30, 900]))]}  # fmt: skip
        else:
            changed[name] = DEEP
    return changed


def headers_of(chance: random.Random) -> list[str]:
    """Return headers of which some are strange."""
    known = [
        "Origin: null", "Origin: http://evil", "Host: evil", "Authorization: Bearer \udcff", "Expect: 100-continue",
        "Content-Length: 5", "Content-Length: -1", "Content-Length: 99999999999999", "Content-Type: text/plain",
        "Transfer-Encoding: gzip", "Upgrade: websocket\r\nConnection: Upgrade", "Upgrade: h2c\r\nConnection: Upgrade",
        "Connection: close", "Connection: keep-alive", "X-Forwarded-For: \x00", "Cookie: " + "a" * 70_000,
        "Range: bytes=0-", "Accept-Encoding: gzip", "A: b\r\n c", ": x", "Origin: http://[", "Host: [::1",
    ]  # fmt: skip
    many = [f"X-{i}: {i}" for i in range(chance.choice([1, 200, 3000]))]
    chosen = chance.sample(known, chance.randrange(1, 4))
    return [*chosen, *many] if chance.random() < 0.2 else chosen


def send(service: Service, how: str, data: bytes, kept: list[socket.socket]) -> int | None:
    """Send bytes; return the status of the answer, or None where there is none."""
    with contextlib.ExitStack() as stack:
        connection = service.connect()
        if how == "leave":
            kept.append(connection)
            connection.sendall(data[: len(data) // 2])
            while len(kept) > 40:
                kept.pop(0).close()
            return None
        stack.callback(connection.close)
        with contextlib.suppress(ConnectionError):  # it may hang up in the middle
            if how == "drip":
                for at in range(0, min(len(data), 200), 10):
                    connection.sendall(data[at : at + 10])
                connection.sendall(data[200:])
            else:
                connection.sendall(data[: len(data) // 2] if how == "cut" else data)
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return None
        if how in ("half", "cut"):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        return _status(connection)


def _status(connection: socket.socket) -> int | None:
    """Read the answer; return its status."""
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
        body = response.read() if response.status >= 400 else response.read(100_000)
    except (OSError, http.client.HTTPException, ValueError):
        return None
    if response.status == 500 or b"Traceback" in body:
        raise AssertionError(f"{response.status} {body[:2000]!r}")
    return response.status


class Fuzzer:
    """Threads that send damaged requests, and one that sends sound ones."""

    def __init__(
        self,
        service: Service,
        probes: Callable[[http.client.HTTPConnection], None],
        max_seconds: float,
    ) -> None:
        self.service = service
        self.max_seconds = max_seconds
        self.probes = probes
        self.statuses: Counter[str] = Counter()
        self.problems: list[str] = []
        self.longest = 0.0
        self.recent: deque[int] = deque(maxlen=4 * THREADS)
        self.ended = threading.Event()
        self._numbers = iter(range(int(os.environ.get("FUZZ_START", "0")), 10**12))
        self._lock = threading.Lock()

    def run(self, seconds: float) -> None:
        """Send for so long, or until something is wrong."""
        threads = [threading.Thread(target=self._attack) for _ in range(THREADS)]
        threads.append(threading.Thread(target=self._probe))
        for thread in threads:
            thread.start()
        deadline, enough = time.monotonic() + seconds, self.statuses.total() + LEAST
        while time.monotonic() < deadline or self.statuses.total() < enough:
            if self.problems or self.service.process.poll() is not None:
                break
            time.sleep(0.1)
        self.ended.set()
        for thread in threads:
            thread.join()

    def _attack(self) -> None:
        kept: list[socket.socket] = []
        while not self.ended.is_set():
            with self._lock:
                number = next(self._numbers)
                self.recent.append(number)
            how, data = attack(number)
            try:
                status = send(self.service, how, data, kept)
            except OSError as error:
                self._note(f"refused: {error.strerror or error}")
            except Exception as error:
                self.problems.append(f"{number} {how}: {error!r}\n{data[:3000]!r}")
            else:
                if status is not None and status not in FINE:
                    self.problems.append(f"{number} {how}: status {status}\n{data[:3000]!r}")
                self._note(str(status))
        for connection in kept:
            connection.close()

    def _note(self, what: str) -> None:
        with self._lock:
            self.statuses[what] += 1

    def _probe(self) -> None:
        while not self.ended.is_set():
            begun, before = time.monotonic(), self.service.waits()
            connection = http.client.HTTPConnection(
                self.service.host, self.service.port, timeout=60
            )
            try:
                self.probes(connection)
            except (OSError, http.client.HTTPException, AssertionError) as error:
                if not self.ended.is_set():
                    self.problems.append(f"a sound request: {type(error).__name__} {error}")
            finally:
                connection.close()
            took = time.monotonic() - begun
            more = {
                task: waited - before.get(task, 0) for task, waited in self.service.waits().items()
            }
            took -= more.pop("thread-self") + max(more.values(), default=0)
            self.longest = max(self.longest, took)
            if took > self.max_seconds:
                self.problems.append(f"a sound request took {took:.2f} s beside {[*self.recent]}")
            self.ended.wait(0.05)


def sound_search(connection: http.client.HTTPConnection) -> None:
    """Search as others do."""
    connection.request("POST", "/v1/search", json.dumps({"query": "kiosk morning", "k": 1}))
    response = connection.getresponse()
    body = response.read()
    assert response.status in (200, 503), (response.status, body)
    assert response.status == 503 or b"kiosk" in body


def sound_look(connection: http.client.HTTPConnection) -> None:
    """Look whether the service is well, as others do; its answers take as long as the model does."""
    connection.request("GET", "/health")
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["status"]) == (200, "ok")


def fuzz(seconds: float, folder: Path, what: str) -> dict[str, Any]:
    """Start a service and send requests for so long; return the figures.

    Raises:
        AssertionError: Something was wrong.
    """
    service = Service(folder, what)
    try:
        limit = MAX_SECONDS if seconds >= ALONE else MAX_SECONDS_BESIDE_TESTS
        fuzzer = Fuzzer(service, sound_search if what == "rag" else sound_look, limit)
        fuzzer.run(min(seconds / 4, 60))
        before = service.memory()
        if not fuzzer.problems:
            fuzzer.ended.clear()
            fuzzer.run(seconds * 3 / 4)
        assert service.process.poll() is None, f"it ended: {service.log.read_text()[-4000:]}"
        growth = service.memory() - before
    finally:
        code = service.end()
    log = service.log.read_text("utf-8", "replace")
    assert not fuzzer.problems, "\n".join(fuzzer.problems[:5]) + f"\n{log[-6000:]}"
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:6000]
    assert growth < MAX_GROWTH, f"it grew by {growth:,} bytes"
    assert code == 0, f"it ends with {code}"
    return {
        "sent": sum(fuzzer.statuses.values()),
        "statuses": dict(fuzzer.statuses.most_common()),
        "longest": round(fuzzer.longest, 3),
        "growth": growth,
        "log": len(log),
    }


@contextlib.contextmanager
def rag_service(folder: Path) -> Iterator[str]:
    """Serve the answers of a small index, as `llmpipe serve` does, with an endpoint as the model."""
    from hashed_words import HashedWords, write_embeddings
    from openai_endpoint import Endpoint
    from town_service import SAYS, collection

    from llmpipe.retrieval.answer import Answerer, AnswerSettings
    from llmpipe.retrieval.generator import GeneratorConfig, open_generator
    from llmpipe.retrieval.index import IndexSettings, build_index
    from llmpipe.retrieval.search import Retriever
    from llmpipe.retrieval.threshold import Threshold
    from llmpipe.web.server import serve_answers

    documents, chunks = collection()
    embeddings = write_embeddings(folder / "embeddings", documents, chunks)
    build_index(embeddings, folder / "index", IndexSettings())
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(Endpoint())
        endpoint.reply = lambda body: (SAYS, "stop")
        config = GeneratorConfig(
            engine="openai", model="m", base_url=endpoint.url, slots=2, max_tokens=64
        )
        generator = stack.enter_context(open_generator(config, None, threads=1, reveal=str))
        answerer = Answerer(
            Retriever.open(folder / "index", HashedWords()), generator, AnswerSettings(),
            Threshold("given", -1),
        )  # fmt: skip
        served = serve_answers(
            contextlib.nullcontext(answerer),
            "town",
            "answers",
            host="127.0.0.1",
            port=0,
            slots=2,
            api_key=None,
        )
        yield stack.enter_context(served).url


@contextlib.contextmanager
def model_service(gguf: str) -> Iterator[str]:
    """Serve a GGUF as `llmpipe serve` does."""
    from llmpipe.web.server import serve_model

    with serve_model(
        Path(gguf), "answers", host="127.0.0.1", port=0, context=256, slots=2, threads=1, batch=32,
        api_key=None, tells_cached=False,
    ) as endpoint:  # fmt: skip
        yield endpoint.url


def serve(folder: Path, what: str) -> None:
    """Serve until SIGTERM, with the log on standard error."""
    import logging

    logging.basicConfig(level=logging.INFO)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    with rag_service(folder) if what == "rag" else model_service(what) as url:
        print(url, flush=True)
        while not stop.wait(0.2):
            pass


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]), sys.argv[3])
    else:
        print(json.dumps(fuzz(float(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])))
