"""A loopback endpoint that speaks OpenAI's protocol (chats and embeddings), to test the protocol itself.

Its replies depend on the request alone. Requests of llmpipe's probe are answered as an endpoint does that
obeys all fields, and kept apart in ``probes``; ``obeys`` lists what it obeys. ``before`` may answer instead: it is given the request's
body and its number (from 1), and returns (status, body, headers), None to go on, or waits.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from openai_batch_server import OpenAIBatchServer

from llmpipe.backends.openai.probe import OPENING

Answer = tuple[int, Any, dict[str, str]]


class Endpoint:
    """Serves until the block ends. ``received`` holds the bodies, ``headers`` what came with them
    (names in small letters)."""

    def __init__(
        self, before: Callable[[dict[str, Any], int], Answer | None] | None = None
    ) -> None:
        self.before = before or (lambda body, number: None)
        self.reply = evolving_reply
        self.thought = ("reasoning_content", "")  # a field of messages, and what stands in it
        self.embed = letter_vector
        self.usage: Callable[[dict[str, Any]], tuple[int, int] | None] = lambda body: (1, 1)
        self.cached = 0  # prompt tokens of each reply that were cached
        self.obeys = {"schema", "seed", "system", "logprobs", "n", "max_tokens", "usage"}
        self.refuses: set[str] = set()  # names of fields
        self.batches = OpenAIBatchServer(self._completion)
        self.probes: list[dict[str, Any]] = []
        self.received: list[dict[str, Any]] = []
        self.answered: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.pause = 0.0  # between the pieces of a stream
        self.first_event = ""  # what a stream begins with, as it is
        self.hung_up = threading.Event()
        self.in_flight = 0
        self.most_in_flight = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Endpoint:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.answer(*endpoint.batches.get(self.path))

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path.endswith(("/files", "/batches")):
                    self.answer(*endpoint.batches.post(self.path, data))
                    return
                body = json.loads(data)
                if is_probe(body):
                    endpoint.probes.append(body)
                    self.answer(*endpoint._probed(body))
                    return
                with endpoint._lock:
                    endpoint.received.append(body)
                    endpoint.headers.append(
                        {name.lower(): value for name, value in self.headers.items()}
                    )
                    number = len(endpoint.received)
                    endpoint.in_flight += 1
                    endpoint.most_in_flight = max(endpoint.most_in_flight, endpoint.in_flight)
                try:
                    refusal = endpoint.before(body, number)
                finally:
                    with endpoint._lock:
                        endpoint.in_flight -= 1
                if refusal is None and body.get("stream"):
                    endpoint._stream(body, self)
                    return
                embeds = self.path.endswith("/embeddings")
                reply = endpoint._embeddings if embeds else endpoint._completion
                status, answer, headers = refusal or (200, reply(body), {})
                self.answer(status, answer, headers)
                if status == 200:
                    endpoint.answered.append(body)

            def answer(self, status: int, answer: Any, headers: Mapping[str, str]) -> None:
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                pass

        return Handler

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        text, finish = self.reply(body)
        field, thought = self.thought
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "finish_reason": finish,
                    "message": {"role": "assistant", "content": text, field: thought},
                }
            ],
            **self._usage(body),
        }

    def _usage(self, body: dict[str, Any]) -> dict[str, Any]:
        counted = self.usage(body)
        if counted is None:
            return {}
        prompt, written = counted
        details = {"cached_tokens": self.cached}
        usage = {"prompt_tokens": prompt, "completion_tokens": written,
                 "total_tokens": prompt + written, "prompt_tokens_details": details}  # fmt: skip
        return {"usage": usage}

    def _probed(self, body: dict[str, Any]) -> Answer:
        """Answer a probe as `obeys` and `refuses` say."""
        if refused := self.refuses & {*body, *(m["role"] for m in body["messages"])}:
            return 400, {"error": {"message": f"unsupported: {', '.join(sorted(refused))}"}}, {}
        seed = body.get("seed") if "seed" in self.obeys else len(self.probes)
        text = "one two three" if seed is None else f"four {seed}"
        if "response_format" in body and "schema" in self.obeys:
            text = json.dumps({"verdict": True})
        heard = [m for m in body["messages"] if m["role"] != "system" or "system" in self.obeys]
        limit = body.get("max_tokens", body.get("max_completion_tokens", 60))
        choice = {"finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        if body.get("logprobs") and "logprobs" in self.obeys:
            choice["logprobs"] = {
                "content": [{"token": "one", "logprob": -0.1, "top_logprobs": []}]
            }
        written = min(limit, 60) if "max_tokens" in self.obeys else 60
        count = body.get("n", 1) if "n" in self.obeys else 1
        answer: dict[str, Any] = {
            "id": "chatcmpl-0", "object": "chat.completion", "created": 0, "model": body["model"],
            "choices": [{"index": index, **choice} for index in range(count)],
        }  # fmt: skip
        if "usage" in self.obeys:
            prompt = sum(len(message["content"].split()) + 3 for message in heard)
            answer["usage"] = {"prompt_tokens": prompt, "completion_tokens": written}
        return 200, answer, {}

    def _stream(self, body: dict[str, Any], handler: BaseHTTPRequestHandler) -> None:
        """Send a reply three characters at a time; ``hung_up`` notes that the reader has gone."""
        text, finish = self.reply(body)
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        field, thought = self.thought
        deltas = [({field: thought}, None)] * bool(thought)
        deltas += [({"content": text[i : i + 3]}, None) for i in range(0, len(text), 3)]
        deltas.append(({"content": ""}, finish))
        try:
            if self.first_event:
                handler.wfile.write(f"data: {self.first_event}\n\n".encode())
            for delta, reason in deltas:
                choice = {"index": 0, "delta": delta, "finish_reason": reason}
                self._event(body, handler, choices=[choice])
                time.sleep(self.pause)
            if "stream_options" in body:
                usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
                self._event(body, handler, choices=[], usage=usage)
            handler.wfile.write(b"data: [DONE]\n\n")
            self.answered.append(body)
        except OSError:
            self.hung_up.set()

    def _event(self, body: dict[str, Any], handler: BaseHTTPRequestHandler, **fields: Any) -> None:
        shape = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0}
        event = json.dumps({**shape, "model": body["model"], **fields})
        handler.wfile.write(f"data: {event}\n\n".encode())
        handler.wfile.flush()

    def _embeddings(self, body: dict[str, Any]) -> dict[str, Any]:
        texts = body["input"]
        rows = [self.embed(text)[: body.get("dimensions")] for text in texts]
        data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
        return {
            "object": "list",
            "model": body["model"],
            "data": data[::-1],  # clients must go by the index
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }


def is_probe(body: dict[str, Any]) -> bool:
    """Return whether a request is one of llmpipe's probe."""
    messages = body.get("messages") or [{"content": ""}]
    return str(messages[-1]["content"]).startswith(OPENING)


def letter_vector(text: str) -> list[float]:
    """Count the letters of a text, a dimension for each: like texts have like vectors."""
    return [1.0 + text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"]


def evolving_reply(body: dict[str, Any]) -> tuple[str, str]:
    """Play a teacher of any method: a new text for each new request."""
    name = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:12]
    fields = schema_fields(body)
    if "tasks" in fields:
        words = [f"{name}{i}" for i in range(4)]
        return json.dumps({"tasks": [f"Give{w} that{w} word{w} back{w}" for w in words]}), "stop"
    if "classification" in fields:
        return json.dumps({"classification": name[0] in "02468"}), "stop"
    if "instances" in fields:
        return json.dumps({"instances": [{"input": f"item {name}", "output": name}]}), "stop"
    if "score" in fields:
        return json.dumps({"score": 0 if "Seven the of" in str(body["messages"]) else 4}), "stop"
    asked = body["messages"][-1]["content"]
    letters = name.translate(str.maketrans("0123456789", "ghijklmnop"))  # no numbers to compare
    if "items" in fields:
        quote = fields["items"]["items"]["properties"]["quote"]["enum"][0]
        question = f"What about {quote.split()[-2]} {letters}?"
        return json.dumps({"items": [{"quote": quote, "question": question}]}), "stop"
    if "better" in fields:
        first, second = asked.split("First answer:\n")[1].split("\n\nSecond answer:\n")
        return json.dumps({"better": "first" if first < second else "second"}), "stop"
    if "same" in fields:
        return json.dumps({"same": True}), "stop"
    if "question" in fields:
        return json.dumps({"question": f"Please {letters}: {asked.split()[-1]} tell me?"}), "stop"
    if "equal" in fields:
        return json.dumps({"equal": False}), "stop"
    if "instruction" in fields:
        return json.dumps({"instruction": f"Explain item {name} in two steps."}), "stop"
    return f"Item {name} has two parts: weight and color.", "stop"


def schema_fields(body: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the JSON Schema that a request constrains its reply by."""
    shape = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
    fields: dict[str, Any] = shape.get("properties", {})
    return fields
