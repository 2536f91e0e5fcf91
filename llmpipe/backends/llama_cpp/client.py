"""Call a model's server that runs as our subprocess: tokens, templates, answers, streams.

Each call opens its own connection. A call whose connection was dropped is sent once more. A dropped
stream is an error instead, because part of the answer was already passed on.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import urllib.parse
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from llmpipe.backends.llama_cpp.chat import GREEDY, Decoding, stream_chat
from llmpipe.backends.llama_cpp.engines import ENGINES, EngineName
from llmpipe.backends.reasoning import Reply
from llmpipe.backends.streaming import Cancellation, Pieces, whole
from llmpipe.errors import ModelServerError, StageError

CALL_TIMEOUT = 1800.0
"""The maximum seconds of one reply; a long prompt on a slow CPU takes long."""

_DROPPED = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server computes with, by its own account."""

    context: int
    """Maximum tokens of one conversation. llama.cpp rounds a requested context up to a multiple of
    256, or lowers it to the one that the model was trained with."""
    slots: int
    """Conversations that are answered at the same time."""
    threads: int
    """CPU threads."""


@dataclass(slots=True)
class LlamaServer:
    """A running server. Several threads can call its methods at once.

    Every method raises `StageError` if the server has died or refuses the request.
    """

    url: str
    """Its address, such as ``http://127.0.0.1:41234``; OpenAI clients add ``/v1``."""
    model: str
    """The model's name on the server."""
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    limits: Limits
    api_key: str | None = field(default=None, repr=False)
    engine: EngineName = "xllamacpp"
    _template: str | None = field(default=None, init=False, repr=False)

    @property
    def program(self) -> str:
        """What computes, for messages."""
        return ENGINES[self.engine].program

    def tokenize(
        self, text: str, *, parse_special: bool = True, add_special: bool = False
    ) -> list[int]:
        """Return the token ids of a text.

        ``parse_special`` reads texts such as ``<|im_start|>`` as special tokens; ``add_special``
        adds the model's own BOS (or EOS) tokens around the text.
        """
        body = {"content": text, "parse_special": parse_special, "add_special": add_special}
        tokens: list[int] = self._post("/tokenize", body)["tokens"]
        return tokens

    def apply_template(
        self, messages: Sequence[Mapping[str, str]], *, answer_next: bool = True
    ) -> str:
        """Return the text that the model's chat template makes of ``messages``.

        ``answer_next`` opens the assistant's turn.
        """
        body = {"messages": list(messages), "add_generation_prompt": answer_next}
        return str(self._post("/apply-template", body)["prompt"])

    def props(self) -> dict[str, Any]:
        """Return the server's properties: context, slots, chat template, sampling defaults."""
        return self._call("GET", "/props", None)

    def described(self) -> dict[str, Any]:
        """Return the entry of the one model in the server's list: name, tags, ``meta``."""
        models: list[dict[str, Any]] = self._call("GET", "/v1/models", None).get("data") or [{}]
        return models[0]

    def complete(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> str:
        """Return the continuation of a prompt, a text or token ids, of ``max_tokens`` at most."""
        body = {
            "prompt": prompt if isinstance(prompt, str) else list(prompt),
            "n_predict": max_tokens,
            "temperature": temperature,
            "seed": seed,
            "stop": list(stop),
        }
        return str(self._post("/completion", body)["content"])

    def prefill(self, tokens: int) -> float:
        """Return the seconds for a prompt with this number of arbitrary tokens."""
        vocabulary = int(self.described()["meta"]["n_vocab"])
        prompt = [token % vocabulary for token in range(tokens)]
        body = {"prompt": prompt, "n_predict": 1, "cache_prompt": False, "temperature": 0}
        return float(self._post("/completion", body)["timings"]["prompt_ms"]) / 1000

    def speed(self, tokens: int = 32) -> float:
        """Return how many tokens a second the model writes alone, after a prompt of one token."""
        body = {"prompt": [0], "n_predict": tokens, "ignore_eos": True, "temperature": 0}
        return float(self._post("/completion", body)["timings"]["predicted_per_second"])

    def next_tokens(self, prompt: Sequence[int], count: int) -> dict[int, float]:
        """Return the log-probabilities (nats) of the likeliest next tokens, by token id.

        They are the model's own, before any sampling setting. A prefix shared with the last prompt
        is not computed again.
        """
        # If several tokens form one letter, the server skips the first and would report the token
        # after it. So a whole letter is forced as the next token.
        body = {
            "prompt": list(prompt),
            "n_predict": 1,
            "n_probs": count,
            "post_sampling_probs": False,
            "logit_bias": [[self.tokenize("a")[0], 1e4]],
            "cache_prompt": True,
        }
        (place,) = self._post("/completion", body)["completion_probabilities"]
        return {row["id"]: row["logprob"] for row in place["top_logprobs"]}

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        json_schema: Mapping[str, Any] | None = None,
        adapter: int | None = None,
    ) -> Reply:
        """Return the reply to a conversation.

        ``json_schema`` constrains the answer; ``adapter`` is the number of the LoRA adapter.
        """
        constraint = None if json_schema is None else {"json_schema": json_schema}
        decoding = Decoding(max_tokens, temperature, seed, constraint, adapter)
        return whole(stream_chat(self, messages, decoding))

    def stream_chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        grammar: str | None = None,
        cancellation: Cancellation | None = None,
    ) -> Pieces:
        """Yield the pieces of an answer to a conversation, and its `Usage` at the end.

        Closing the generator or canceling closes the connection, which frees the slot. After a
        cancellation the pieces end without a `Usage`. ``grammar`` (GBNF) constrains the answer.
        """
        constraint = None if grammar is None else {"grammar": grammar}
        decoding = Decoding(max_tokens, temperature, seed, constraint)
        return stream_chat(self, messages, decoding, cancellation)

    def template(self) -> str:
        """Return the chat template that the server renders with."""
        if self._template is None:
            self._template = str(self.props()["chat_template"])
        return self._template

    def end_tokens(self) -> dict[int, str]:
        """Return the end tokens by id: those that llama.cpp forbids under ``ignore_eos``."""
        body = {"prompt": [0], "n_predict": 1, "ignore_eos": True}
        settings = self._post("/completion", body)["generation_settings"]
        ids = sorted(bias["token"] for bias in settings["logit_bias"])
        return {i: str(self._post("/detokenize", {"tokens": [i]})["content"]) for i in ids}

    def holds(self, json_schema: Mapping[str, Any]) -> bool:
        """Return whether the server enforces a schema; llguidance drops one that it cannot read.

        The test biases toward a token that no JSON begins with, so only a constraint prevents it.
        """
        token = self.tokenize(")")[-1]
        body = {**GREEDY, "prompt": [token], "n_predict": 1, "logit_bias": [[token, 1e6]]}
        asked = {**body, "json_schema": json_schema, "return_tokens": True}
        return token not in self._post("/completion", asked)["tokens"]

    def events(
        self, path: str, body: Mapping[str, Any], cancellation: Cancellation
    ) -> Generator[dict[str, Any], None, None]:
        """Send a request and yield the events of the reply up to the last one.

        Raises:
            OSError: The connection broke; or `http.client.HTTPException`.
        """
        with closing(self._connect()) as connection:
            connection.connect()
            with cancellation.watching(connection.sock):
                connection.request("POST", path, json.dumps(body), self._headers())
                with closing(connection.getresponse()) as response:
                    if response.status != 200:
                        raise self._refused(path, response.status, response.read())
                    yield from self._read_events(response)

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of the server's log."""
        self.log.flush()
        with Path(f"/proc/self/fd/{self.log.fileno()}").open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - 16_384))
            text = log.read().decode("utf-8", "replace")
        return "\n".join(text.splitlines()[-lines:])

    def check_identity(self, tag: str) -> None:
        """Require that the server at this address is the one that we started."""
        if tag not in self.described().get("tags", ()):
            raise StageError(
                f"another server answers at {self.url}", hint="stop it, or choose another port"
            )

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        try:
            status, text = self._exchange(method, path, body)
        except _DROPPED:
            self.check_alive()
            try:
                status, text = self._exchange(method, path, body)
            except OSError as error:
                raise self._unreachable(error) from error
        except OSError as error:
            raise self._unreachable(error) from error
        if status != 200:
            raise self._refused(path, status, text)
        answer: dict[str, Any] = json.loads(text)
        return answer

    def _exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> tuple[int, bytes]:
        with closing(self._connect()) as connection:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, self._headers())
            response = connection.getresponse()
            return response.status, response.read()

    def _connect(self) -> http.client.HTTPConnection:
        place = urllib.parse.urlsplit(self.url)
        return http.client.HTTPConnection(place.hostname or "", place.port, timeout=CALL_TIMEOUT)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return headers

    def _unreachable(self, error: OSError) -> StageError:
        self.check_alive()
        return StageError(f"{self.program} at {self.url} does not answer: {error}")

    def check_alive(self) -> None:
        """Raise `StageError` with the end of the log if the server has died."""
        try:
            code = self.process.wait(timeout=1)  # after its socket closed it may still be ending
        except subprocess.TimeoutExpired:
            return
        raise StageError(
            f"the {self.program} server died ({exit_text(code)})", hint=self.log_tail()
        )

    def _read_events(self, lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        """Read the lines of a stream of events, up to the last event."""
        for line in lines:
            name, _, data = line.strip().partition(b": ")
            if name not in (b"data", b"error"):
                continue  # empty lines, and comments that keep the connection open
            event = json.loads(data)
            if name == b"error" or "error" in event:
                gist = f"{self.program} stopped in the middle of an answer"
                raise ModelServerError(f"{gist}: {data.decode()}", gist=gist)
            yield event
            if event["stop"]:
                return
        raise http.client.IncompleteRead(b"")  # it ended too early

    def _refused(self, path: str, status: int, text: bytes) -> ModelServerError:
        gist = f"{self.program} refused {path}"
        return ModelServerError(f"{gist}: {_error_message(status, text)}", gist=gist)


def exit_text(code: int) -> str:
    """Return how a process ended, as text."""
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"


def _error_message(status: int, text: bytes) -> str:
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}: {text[:200].decode('utf-8', 'replace')}"
