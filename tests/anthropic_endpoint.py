"""A loopback server that speaks Anthropic's Messages API, to test the protocol itself.

Its answers are made of the SDK's own types, so that a field that the API does not have fails here. A
request with a tool that must be called is answered by a call of it. ``before`` may answer instead, as
in `openai_endpoint`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from anthropic.types import Message
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse
from anthropic.types.shared import ErrorResponse
from openai_endpoint import Answer, evolving_reply, is_probe

KNOWN = {"model", "messages", "max_tokens", "system", "tools", "tool_choice", "temperature"}
"""The fields of a request that the server takes; the API refuses others by name."""


class AnthropicEndpoint:
    """Serves until the block ends. ``received`` holds the bodies, ``headers`` what came with them."""

    def __init__(
        self, before: Callable[[dict[str, Any], int], Answer | None] | None = None
    ) -> None:
        self.before = before or (lambda body, number: None)
        self.reply = evolving_reply
        self.stop_reason = "end_turn"
        self.thinking = ""
        self.cached = 0
        self.calls_tools = True
        self.refuses: set[str] = set()
        self.probes: list[dict[str, Any]] = []
        self.received: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.looks = 2
        self.expires: set[str] = set()
        self.batches: dict[str, dict[str, Any]] = {}
        self.submitted: list[list[dict[str, Any]]] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> AnthropicEndpoint:
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
                self.say(*endpoint._shown(self.path))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.say(*endpoint._answer(self.path, body, dict(self.headers)))

            def say(self, status: int, answer: Any, headers: dict[str, str]) -> None:
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Type": "application/json"}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                pass

        return Handler

    def _answer(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> Answer:
        if path == "/v1/messages/batches":
            return 200, self._batch(body["requests"]), {}
        if path != "/v1/messages":
            return failure(404, "not_found_error", path)
        if unknown := (body.keys() - KNOWN) | (body.keys() & self.refuses):
            extra = "Extra inputs are not permitted"
            return failure(400, "invalid_request_error", f"{sorted(unknown)[0]}: {extra}")
        if any(message["role"] not in ("user", "assistant") for message in body["messages"]):
            return failure(400, "invalid_request_error", "messages: unexpected role")
        with self._lock:
            kept = self.probes if is_probe(body) else self.received
            kept.append(body)
            self.headers.append({name.lower(): value for name, value in headers.items()})
            number = len(self.received)
        refusal = None if is_probe(body) else self.before(body, number)
        return refusal or (200, self.message(body), {})

    def _batch(self, requests: list[dict[str, Any]]) -> dict[str, Any]:
        """Take a batch; it ends after it was looked at ``looks`` times."""
        for request in requests:
            assert not request["params"].keys() - KNOWN
        self.submitted.append(requests)
        batch = f"msgbatch_{len(self.batches)}"
        self.batches[batch] = {
            "requests": requests,
            "looks": self.looks,
            "since": datetime.now(UTC),
        }
        return self._batch_shown(batch)

    def _batch_shown(self, name: str) -> dict[str, Any]:
        batch = self.batches[name]
        done, count = batch["looks"] < 0, len(batch["requests"])
        counts = {"processing": 0 if done else count, "succeeded": count if done else 0,
                  "errored": 0, "canceled": 0, "expired": 0}  # fmt: skip
        return MessageBatch.model_validate({
            "id": name, "type": "message_batch", "created_at": batch["since"],
            "expires_at": batch["since"], "request_counts": counts,
            "processing_status": "ended" if done else "in_progress",
            "results_url": f"{self.url}/v1/messages/batches/{name}/results" if done else None,
        }).model_dump(mode="json")  # fmt: skip

    def _shown(self, path: str) -> Answer:
        """Show all batches, one of them, or its results."""
        parts = path.partition("?")[0].strip("/").split("/")[3:]
        if not parts:
            newest = [self._batch_shown(name) for name in reversed(self.batches)]
            return 200, {"data": newest, "has_more": False, "first_id": None, "last_id": None}, {}
        if len(parts) == 1:
            self.batches[parts[0]]["looks"] -= 1
            return 200, self._batch_shown(parts[0]), {}
        lines = []
        for request in self.batches[parts[0]]["requests"][::-1]:
            result: dict[str, Any] = {"type": "expired"}
            if request["params"]["messages"][-1]["content"] not in self.expires:
                result = {"type": "succeeded", "message": self.message(request["params"])}
            entry = {"custom_id": request["custom_id"], "result": result}
            MessageBatchIndividualResponse.model_validate(entry)
            lines.append(json.dumps(entry) + "\n")
        return 200, "".join(lines).encode(), {}

    def message(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the message that answers a request."""
        content: list[dict[str, Any]] = []
        if self.thinking:
            content.append({"type": "thinking", "thinking": self.thinking, "signature": "s"})
        stop_reason = self.stop_reason
        forced = body.get("tool_choice", {}).get("name")
        if forced and self.calls_tools:
            schema = next(t["input_schema"] for t in body["tools"] if t["name"] == forced)
            given = self.tool_input(body, schema)
            content.append({"type": "tool_use", "id": "toolu_1", "name": forced, "input": given})
            stop_reason = "tool_use"
        elif self.stop_reason != "refusal":
            content.append({"type": "text", "text": self.reply(body)[0]})
        words = sum(len(m["content"].split()) for m in body["messages"])
        words += len(str(body.get("system", "")).split())
        message = Message.model_validate({
            "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"],
            "content": content, "stop_reason": stop_reason, "stop_sequence": None,
            "usage": {"input_tokens": words, "output_tokens": min(7, body["max_tokens"]),
                      "cache_read_input_tokens": self.cached},
        })  # fmt: skip
        return message.model_dump(mode="json")

    def tool_input(self, body: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
        """Return what a model gives the tool: a reply that the schema describes."""
        if "verdict" in schema["properties"]:
            return {"verdict": True}
        asked = {**body, "response_format": {"json_schema": {"schema": schema}}}
        given: dict[str, Any] = json.loads(self.reply(asked)[0])
        return given


def failure(status: int, kind: str, message: str, **headers: str) -> Answer:
    """Return an error as the API says it."""
    answer = {"type": "error", "error": {"type": kind, "message": message}}
    ErrorResponse.model_validate(answer)
    return status, answer, {name.replace("_", "-"): value for name, value in headers.items()}
