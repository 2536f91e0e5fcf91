"""A small server of llama.cpp's protocol for a model that computes one conversation at a time.

It runs in a script of its own, like ``server.py``, and keeps to the same conversation with its
parent: a JSON line of settings on standard input, a JSON line with the address (or the error) on
standard output, and the end when standard input ends.

A field that has no effect is refused. One request is computed at a time; others wait.
"""

from __future__ import annotations

import hmac
import json
import os
import random
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from llmpipe.backends.llama_cpp.written import Piece, RefusedError, Written


class Model(Protocol):
    """A model with its tokenizer and its chat template."""

    engine: str
    """The engine's name, for messages."""
    fields: frozenset[str]
    """The fields of a request for a text that have an effect, or that the engine accepts."""
    neutral: Mapping[str, Any]
    """Those of the fields that have no effect, with the value that asks for nothing."""
    context: int
    """The maximum tokens of a conversation."""
    template: str
    """The source of its chat template, or an empty text."""

    def about(self) -> dict[str, int]:
        """Return its size: ``n_vocab``, ``n_ctx_train``, ``n_embd``, ``n_params``, ``size``."""

    def prompt(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Return the prompt of a conversation, without the tokens that tokenizing adds."""

    def tokens(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the tokens of a text."""

    def text(self, tokens: Sequence[int]) -> bytes:
        """Return the text of tokens, special ones included."""

    def write(self, body: Mapping[str, Any], written: Written) -> Generator[Piece, None, None]:
        """Yield the pieces of an answer.

        Raises:
            RefusedError: The prompt does not fit, or a setting cannot be used.
        """


class Handler(BaseHTTPRequestHandler):
    """Answers one request. Connections are not kept."""

    model: Model
    settings: Mapping[str, Any]
    busy: threading.Lock
    protocol_version = "HTTP/1.0"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class names it
        """Log requests only where the log is kept."""
        if self.settings["verbosity"] > 2:
            super().log_message(format, *args)

    def do_GET(self) -> None:
        """Describe the model."""
        self._answer({"/props": self._props, "/v1/models": self._models})

    def do_POST(self) -> None:
        """Tokenize, render or write."""
        self._answer(
            {
                "/tokenize": self._tokenize,
                "/detokenize": self._detokenize,
                "/apply-template": self._apply_template,
                "/completion": self._native,
                "/v1/completions": self._completion,
                "/v1/chat/completions": self._chat,
            }
        )

    def _answer(
        self, routes: Mapping[str, Callable[[dict[str, Any]], dict[str, Any] | None]]
    ) -> None:
        try:
            given = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if not any(
                hmac.compare_digest(given.encode(), k.encode()) for k in self.settings["api_keys"]
            ):
                raise RefusedError("Invalid API Key", "authentication_error", 401)
            if self.path not in routes:
                raise RefusedError(f"there is no route {self.path}", "not_found_error", 404)
            size = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(size)) if size else {}
            answer = routes[self.path](body)
        except RefusedError as error:
            self._send(error.status, error.data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the caller is gone
        except Exception as error:
            traceback.print_exc()
            self._send(500, RefusedError(repr(error), "server_error", 500).data)
        else:
            if answer is not None:
                self._send(200, answer)

    def _send(self, status: int, data: Mapping[str, Any]) -> None:
        body = json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            pass  # the caller is gone

    def _props(self, body: dict[str, Any]) -> dict[str, Any]:
        return {
            "default_generation_settings": {"n_ctx": self.model.context},
            "total_slots": 1,
            "chat_template": self.model.template,
            "chat_template_caps": {},
        }

    def _models(self, body: dict[str, Any]) -> dict[str, Any]:
        entry = {
            "id": self.settings["alias"], "object": "model", "created": int(time.time()),
            "owned_by": "llmpipe", "tags": [self.settings["tag"]],
            "meta": self.model.about(),
        }  # fmt: skip
        return {"object": "list", "data": [entry]}

    def _tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        return {
            "tokens": self.model.tokens(
                body["content"],
                add_special=body.get("add_special", False),
                parse_special=body.get("parse_special", True),
            )
        }

    def _detokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"content": self.model.text(body["tokens"]).decode("utf-8", "replace")}

    def _apply_template(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"prompt": self.model.prompt(body["messages"])}

    def _native(self, body: dict[str, Any]) -> dict[str, Any] | None:
        def event(piece: Piece, written: Written) -> dict[str, Any]:
            told = {
                "content": piece.text, "tokens": piece.tokens, "stop": piece.stop_type is not None,
                "tokens_predicted": written.tokens, "tokens_evaluated": len(written.prompt),
            }  # fmt: skip
            if piece.stop_type is not None:
                told |= {"stop_type": piece.stop_type, "timings": written.timings()}
            return told

        def whole(text: str, last: Piece, written: Written) -> dict[str, Any]:
            return event(Piece(text, last.tokens, last.stop_type), written)

        return self._written(body, self._prompt_tokens(body), event, whole, done=False)

    def _completion(self, body: dict[str, Any]) -> dict[str, Any] | None:
        head = self._head("cmpl", "text_completion", body)

        def choice(text: str, reason: str | None) -> dict[str, Any]:
            return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}

        def event(piece: Piece, written: Written) -> dict[str, Any]:
            told = {**head, "choices": [choice(piece.text, _reason(piece))]}
            return told if piece.stop_type is None else {**told, "timings": written.timings()}

        def whole(text: str, last: Piece, written: Written) -> dict[str, Any]:
            told = {**head, "choices": [choice(text, _reason(last))]}
            return {**told, "usage": written.usage(), "timings": written.timings()}

        return self._written(body, self._prompt_tokens(body), event, whole, head=head)

    def _chat(self, body: dict[str, Any]) -> dict[str, Any] | None:
        head = self._head("chatcmpl", "chat.completion", body)
        stream_head = {**head, "object": "chat.completion.chunk"}
        started: list[bool] = []

        def event(piece: Piece, written: Written) -> dict[str, Any]:
            role = {} if started else {"role": "assistant"}
            started.append(True)
            choice = {
                "index": 0,
                "delta": {**role, "content": piece.text},
                "finish_reason": _reason(piece),
            }
            told = {**stream_head, "choices": [choice]}
            return told if piece.stop_type is None else {**told, "timings": written.timings()}

        def whole(text: str, last: Piece, written: Written) -> dict[str, Any]:
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": _reason(last)}
            usage = {"usage": written.usage(), "timings": written.timings()}
            return {**head, "choices": [choice], **usage}

        prompt = self.model.prompt(body["messages"])
        tokens = self.model.tokens(prompt, add_special=True, parse_special=True)
        return self._written(body, tokens, event, whole, head=stream_head)

    def _head(self, prefix: str, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
        number = f"{prefix}-{random.getrandbits(96):024x}"
        name = self.settings["alias"]
        return {"id": number, "object": kind, "created": int(time.time()), "model": name}

    def _prompt_tokens(self, body: Mapping[str, Any]) -> list[int]:
        prompt = body["prompt"]
        if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
            prompt = prompt[0]
        if isinstance(prompt, str):
            return self.model.tokens(prompt, add_special=True, parse_special=True)
        return list(prompt)

    def _written(
        self,
        body: Mapping[str, Any],
        prompt: list[int],
        event: Callable[[Piece, Written], dict[str, Any]],
        whole: Callable[[str, Piece, Written], dict[str, Any]],
        *,
        head: Mapping[str, Any] | None = None,
        done: bool = True,
    ) -> dict[str, Any] | None:
        """Write an answer: send it as a stream, or return it whole."""
        for name, value in body.items():
            neutral = self.model.neutral
            if name not in self.model.fields or (name in neutral and value != neutral[name]):
                raise RefusedError(f"{self.model.engine} does not support {name}: {value!r}")
        with self.busy, closing(self.model.write(body, written := Written(prompt))) as pieces:
            if body.get("stream"):
                usage = bool((body.get("stream_options") or {}).get("include_usage"))
                self._stream(pieces, written, event, head if usage else None, done=done)
                return None
            text, last = "", Piece("", [])
            for last in pieces:
                text += last.text
                if self._caller_is_gone():
                    return None
            return whole(text, last, written)

    def _stream(
        self,
        pieces: Iterator[Piece],
        written: Written,
        event: Callable[[Piece, Written], dict[str, Any]],
        head: Mapping[str, Any] | None,
        *,
        done: bool,
    ) -> None:
        first = next(pieces)  # what is refused has no stream
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self._event(event(first, written))
        try:
            for piece in pieces:
                self._event(event(piece, written))
        except OSError:
            raise
        except Exception as error:  # the stream has begun: the error is its last event
            traceback.print_exc()
            self._event(RefusedError(repr(error), "server_error", 500).data)
            return
        if head is not None:
            self._event({**head, "choices": [], "usage": written.usage()})
        if done:
            self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, data: Mapping[str, Any]) -> None:
        text = json.dumps(data, ensure_ascii=False)
        self.wfile.write(b"data: " + text.encode("utf-8", "replace") + b"\n\n")
        self.wfile.flush()

    def _caller_is_gone(self) -> bool:
        if not select.select([self.connection], [], [], 0)[0]:
            return False
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True


def _reason(piece: Piece) -> str | None:
    return {None: None, "limit": "length"}.get(piece.stop_type, "stop")


def serve(open_model: Callable[[Mapping[str, Any]], Model]) -> int:
    """Serve until standard input ends; return 1 if the server cannot start.

    Args:
        open_model: Opens the model with the settings of the parent.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent handles signals to the group
        signal.signal(number, signal.SIG_IGN)
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the library's output goes to the log, not to the answer
    settings = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        Handler.settings, Handler.busy = settings, threading.Lock()
        Handler.model = open_model(settings)
        server = ThreadingHTTPServer((settings["host"], settings["port"]), Handler)
    except Exception as error:  # the libraries raise their own; the parent writes the message
        print(json.dumps({"error": str(error)}), file=report, flush=True)
        return 1
    server.daemon_threads = True
    address = f"http://{settings['host']}:{server.server_port}"
    print(json.dumps({"address": address}), file=report, flush=True)
    server.serve_forever()
    return 0


def _leave_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)
