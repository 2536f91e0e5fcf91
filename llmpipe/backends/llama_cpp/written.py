"""An answer while it is written: its pieces, its counts, and where it stops.

The servers of models that compute one conversation at a time share it: ``single_server.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol


class RefusedError(Exception):
    """A request that is not answered, with llama.cpp's kind of error."""

    def __init__(
        self, message: str, kind: str = "invalid_request_error", status: int = 400, **more: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        self.data = {"error": {"code": status, "message": message, "type": kind, **more}}


@dataclass(slots=True)
class Piece:
    """The next part of an answer. The last one has a ``stop_type``: eos, word or limit."""

    text: str
    tokens: list[int]
    stop_type: str | None = None


@dataclass(slots=True)
class Written:
    """An answer while it is written: its prompt, what came of it, and the times."""

    prompt: list[int]
    begun: float = field(default_factory=time.perf_counter)
    first: float | None = None
    tokens: int = 0

    def count(self) -> None:
        """Count a token."""
        self.first = self.first or time.perf_counter()
        self.tokens += 1

    def usage(self) -> dict[str, int]:
        """Return the counts in OpenAI's format."""
        prompt = len(self.prompt)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.tokens,
            "total_tokens": prompt + self.tokens,
        }

    def timings(self) -> dict[str, float]:
        """Return the times in llama.cpp's format."""
        now = time.perf_counter()
        first = now if self.first is None else self.first
        writing = max(now - first, 1e-9)
        return {
            "prompt_n": len(self.prompt),
            "prompt_ms": (first - self.begun) * 1000,
            "predicted_n": self.tokens,
            "predicted_ms": writing * 1000,
            "predicted_per_second": max(self.tokens - 1, 0) / writing,
        }


class Decoder(Protocol):
    """Decodes the tokens of an answer one after another."""

    def feed(self, token: int) -> str:
        """Return the text that is certain after another token."""

    def close(self) -> str:
        """Return the text that was held back, such as a part of a character."""


def room_for(body: Mapping[str, Any], prompt: Sequence[int], context: int) -> int:
    """Return the maximum tokens of an answer.

    Raises:
        RefusedError: The prompt fills the context.
    """
    if len(prompt) >= context:
        raise RefusedError(
            f"the request exceeds the available context size ({context} tokens)",
            "exceed_context_size_error", n_prompt_tokens=len(prompt), n_ctx=context,
        )  # fmt: skip
    names = ("n_predict", "max_tokens", "max_completion_tokens")
    most = next((int(body[name]) for name in names if body.get(name) is not None), -1)
    room = context - len(prompt)
    return room if most < 0 else min(most, room)


def pieces_of(
    tokens: Generator[int, None, None],
    decoder: Decoder,
    ends: Callable[[int], bool],
    body: Mapping[str, Any],
    most: int,
    written: Written,
) -> Generator[Piece, None, None]:
    """Decode tokens, holding back what may be the beginning of a stop text.

    Args:
        tokens: The tokens of the answer; they are closed at its end.
        decoder: Decodes them.
        ends: Whether a token ends an answer.
        body: The request, with its ``stop``.
        most: The maximum number of tokens.
        written: Counts them.
    """
    stop = body.get("stop")
    stops = [stop] if isinstance(stop, str) else list(stop or ())
    held, new = "", list[int]()
    with closing(tokens):
        for token in tokens:
            written.count()
            new.append(token)
            if ends(token):
                yield Piece(held + decoder.close(), new, "eos")
                return
            held += decoder.feed(token)
            found = [at for text in stops if (at := held.find(text)) >= 0]
            if found:
                yield Piece(held[: min(found)], new, "word")
                return
            if written.tokens >= most:
                yield Piece(held + decoder.close(), new, "limit")
                return
            ready = len(held) - _overlap(held, stops)
            if ready:
                yield Piece(held[:ready], new)
                held, new = held[ready:], []


def plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as templates read it: one text, and no role that only OpenAI has."""
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(part["text"] for part in content)
    role = "system" if message["role"] == "developer" else message["role"]
    return {**message, "role": role, "content": content}


def _overlap(text: str, stops: Sequence[str]) -> int:
    """Return how many characters at the end of a text may begin a stop text."""
    longest = max((len(stop) for stop in stops), default=0)
    return next(
        (n for n in range(min(longest - 1, len(text)), 0, -1)
         if any(stop.startswith(text[-n:]) for stop in stops)), 0,
    )  # fmt: skip
