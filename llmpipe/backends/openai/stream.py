"""Stream one answer from any OpenAI-compatible endpoint."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any

import msgspec

from llmpipe.backends.openai.api_key import clean_key, without_key
from llmpipe.backends.reasoning import Parter
from llmpipe.backends.streaming import Cancellation, Piece, Pieces, Thought, Usage
from llmpipe.errors import MissingDependencyError, ModelServerError

EXCERPT = 300
"""The number of characters of an event that a message shows."""
TIMEOUT = 300.0
"""Seconds without data after which a request fails."""


class OpenAIStreamer:
    """Streams answers of one model of an endpoint; several threads can use it at once.

    A temporary failure before the first word is retried twice. A connection that breaks later is
    an error.
    """

    def __init__(self, base_url: str, model: str, *, api_key: str) -> None:
        """Check the key and prepare the client.

        Raises:
            MissingDependencyError: The ``openai`` package is not installed.
            StageError: The key cannot be sent in a header.
        """
        if find_spec("openai") is None:
            raise MissingDependencyError(
                "asking an endpoint needs the openai package", hint="pip install 'llmpipe[serve]'"
            )
        import openai

        self.base_url = base_url
        self.model = model
        self._api_key = clean_key(api_key, f"the API key for {base_url}")
        self._api = openai.OpenAI(base_url=base_url, api_key=self._api_key, timeout=TIMEOUT)

    def __enter__(self) -> OpenAIStreamer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._api.close()

    def stream_chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        cancellation: Cancellation | None = None,
    ) -> Pieces:
        """Yield the pieces of an answer to a conversation, and its `Usage` at the end.

        Closing the generator or canceling closes the connection. A cancellation has to wait for the
        endpoint's first word. After it the pieces end without a `Usage`.

        Raises:
            StageError: The endpoint cannot be reached, refuses, or breaks off.
        """
        import httpx2
        import openai

        cancellation = cancellation or Cancellation()
        body = {
            "model": self.model,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
        }
        try:
            cancellation.check()
            with self._opened(body) as stream, _watched(stream, cancellation):
                yield from _pieces(stream)
        except (openai.OpenAIError, httpx2.HTTPError, OSError) as error:
            if cancellation.cancelled:
                return
            raise self._failure(error) from error

    @contextmanager
    def _opened(self, body: dict[str, Any]) -> Iterator[Any]:
        """Open the stream; do not request the usage if the endpoint does not support it."""
        import openai

        create = self._api.chat.completions.create
        try:
            stream = create(**body, stream=True, stream_options={"include_usage": True})
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if "stream_options" not in str(error.body):
                raise
            stream = create(**body, stream=True)
        with stream:
            yield stream

    def _failure(self, error: Exception) -> ModelServerError:
        cause = error.__cause__ or error
        status = getattr(error, "status_code", None)
        what = f"the endpoint {self.base_url} did not answer"
        return ModelServerError(
            f"{what}: {without_key(str(cause), self._api_key)}",
            gist=f"{what}: {f'HTTP {status}' if status else type(cause).__name__}",
            hint="check generator.model, generator.base_url and generator.api_key",
        )


@contextmanager
def _watched(stream: Any, cancellation: Cancellation) -> Iterator[None]:
    """Let a cancellation shut down the connection of a stream."""
    network = stream.response.extensions.get("network_stream")
    connected = network.get_extra_info("socket") if network else None
    with ExitStack() as stack:
        if isinstance(connected, socket.socket):
            stack.enter_context(cancellation.watching(connected))
        yield


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None

    def thought(self) -> str:
        """Return the reasoning, under either of its common names."""
        said = (self.reasoning_content, self.reasoning)
        return next((text for text in said if isinstance(text, str)), "")


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Tokens(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Chunk(msgspec.Struct, frozen=True):
    """The fields of an event that are used."""

    choices: list[_Choice] | None
    usage: _Tokens | None = None


def _pieces(stream: Any) -> Iterator[Piece]:
    """Read the pieces of an answer; recognize reasoning by its field or by its tags."""
    tokens, finished, parter = _Tokens(), None, Parter()
    words, thoughts = _Joiner(), _Joiner()
    thought = answered = False
    for chunk in _chunks(stream):
        tokens = chunk.usage or tokens
        for choice in chunk.choices or ():
            finished = choice.finish_reason or finished
            delta = choice.delta or _Delta()
            said = words.feed(delta.content or "")
            found = [(thoughts.feed(delta.thought()), True), *parter.feed(said)]
            for text, reasoning in found:
                if text:
                    thought, answered = thought or reasoning, answered or not reasoning
                    yield Thought(text) if reasoning else text
    if finished is None:
        raise ConnectionError("the connection broke in the middle of an answer")
    for text, reasoning in (*parter.feed(words.close()), *parter.close()):
        answered = answered or not reasoning
        yield Thought(text) if reasoning else text
    yield Usage(
        tokens.prompt_tokens,
        tokens.completion_tokens,
        truncated=finished == "length",
        unfinished=parter.reasoning or (thought and not answered),
    )


class _Joiner:
    """Joins halves of surrogate pairs that come in two events; one without its other is U+FFFD.

    Endpoints whose strings are UTF-16 cut an answer anywhere.
    """

    def __init__(self) -> None:
        self._half = ""

    def feed(self, text: str) -> str:
        """Return the text that is whole by now."""
        text = self._half + text
        self._half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        return _whole(text.removesuffix(self._half))

    def close(self) -> str:
        """Return what stands for a half that is left."""
        return _whole(self._half)


def _whole(text: str) -> str:
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _chunks(stream: Any) -> Iterator[_Chunk]:
    """Read the events of a stream; ``openai`` passes on any JSON in them.

    Raises:
        ConnectionError: An event is not a chunk of an answer.
    """
    try:
        for event in stream:
            data = event.to_dict(warnings=False) if hasattr(event, "to_dict") else event
            try:
                yield msgspec.convert(data, _Chunk)
            except msgspec.ValidationError:
                raise ConnectionError(f"it sent {str(data)[:EXCERPT]}") from None
    except json.JSONDecodeError as error:
        raise ConnectionError(f"it sent {error.doc[:EXCERPT]}") from None
