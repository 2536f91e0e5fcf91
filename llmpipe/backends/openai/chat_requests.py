"""What a teacher is asked and what it replies, whichever endpoint stands behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, Protocol, TypedDict

from llmpipe.backends.openai.sdk import Sdk
from llmpipe.backends.spending import Usage


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request; all its fields except ``shared`` are its identity in the journal."""

    messages: Sequence[Mapping[str, str]]
    temperature: float
    max_tokens: int
    seed: int
    schema: Mapping[str, Any] | None = None
    """A JSON Schema that constrains the reply."""
    draw: int = 0
    """The number of this sample, if the same question is asked several times."""
    shared: int = 0
    """The number of first messages that other requests share; not part of the identity."""


@dataclass(frozen=True, slots=True)
class ChatReply:
    """The result of a request: ``text``, or a ``problem`` of this request."""

    text: str = ""
    """The answer without the reasoning."""
    truncated: bool = False
    """Whether ``max_tokens`` or the context cut the reply off."""
    problem: str | None = None
    """``too long``: the prompt exceeds the context; ``refused``: a 400, or the model refuses;
    ``failed``: no attempt succeeded; ``malformed reply``: what came cannot be read as a reply. None
    if the teacher answered."""
    detail: str = ""
    """The endpoint's own message about the problem."""
    reasoning: str = ""
    """The teacher's reasoning, from the endpoint's own field or from tags."""
    tokens: int | None = None
    """The tokens of the reply as the endpoint counts them, reasoning included; None if it does not
    say."""


class SaidUsage(TypedDict):
    """The tokens of a reply as the journal keeps them."""

    input: int
    output: int
    cached: int


class Said(TypedDict):
    """A reply as the journal keeps it; its text still contains reasoning tags."""

    text: str
    truncated: bool
    reasoning: NotRequired[str]
    refused: NotRequired[str]
    """Why the model did not answer, where the endpoint says so apart from the text."""
    usage: NotRequired[SaidUsage]


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an endpoint does with fields of a request, as a probe has found: ``yes``, ``ignored``
    (accepted without effect), ``refused`` or ``unknown``."""

    schema: str = "yes"
    seed: str = "yes"
    system: str = "yes"
    logprobs: str = "unknown"
    many: str = "unknown"
    """Several replies to one request."""
    temperature: str = "yes"
    max_tokens: str = "yes"
    usage: str = "yes"
    """Whether replies say how many tokens they took."""
    limit_field: str = "max_tokens"
    """The name of the field that limits the tokens of a reply."""

    def does(self, name: str) -> bool:
        """Return whether the endpoint obeys, as far as is known."""
        return getattr(self, name) in ("yes", "unknown")


ALL = Abilities()
"""An endpoint that does what requests say, as far as is known."""


class ChatFormat(Protocol):
    """How an endpoint takes a request and says a reply."""

    sdk: Sdk
    abilities: Abilities

    def body(self, request: ChatRequest) -> dict[str, Any]:
        """Return the arguments of the SDK's call; those it does not know are in ``extra_body``."""

    async def create(self, api: Any, body: Mapping[str, Any]) -> Any:
        """Send a request and return the SDK's object for the reply."""

    def read(self, completion: Any) -> Said:
        """Return the reply of the SDK's object.

        Raises:
            MalformedReplyError: It is no reply.
        """


def spent(said: Said) -> Usage | None:
    """Return the tokens of a reply, or None if the endpoint did not say."""
    usage = said.get("usage")
    return Usage(**usage) if usage else None


def with_words(request: ChatRequest, abilities: Abilities) -> list[dict[str, str]]:
    """Return the messages, with what the endpoint does not take by fields as words.

    A system message becomes the beginning of the first user message, and a schema its end.
    """
    messages = [dict(message) for message in request.messages]
    if not abilities.does("system") and messages[0]["role"] == "system" and len(messages) > 1:
        system = messages.pop(0)["content"]
        messages[0]["content"] = f"{system}\n\n{messages[0]['content']}"
    if request.schema is not None and not abilities.does("schema"):
        asked = json.dumps(request.schema, ensure_ascii=False)
        words = f"Reply with one JSON object and nothing else. It follows this schema: {asked}"
        messages[-1]["content"] += f"\n\n{words}"
    return messages
