"""Chats as OpenAI-compatible endpoints take them and reply to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmpipe.backends.openai.chat_requests import (
    ALL,
    Abilities,
    ChatRequest,
    Said,
    SaidUsage,
    with_words,
)
from llmpipe.backends.openai.client import MalformedReplyError
from llmpipe.backends.openai.sdk import OPENAI, Sdk


@dataclass(slots=True)
class OpenAIFormat:
    """The format of ``/v1/chat/completions``."""

    abilities: Abilities = ALL
    sdk: Sdk = OPENAI

    def body(self, request: ChatRequest) -> dict[str, Any]:
        """See `ChatFormat.body`."""
        body: dict[str, Any] = {
            "messages": with_words(request, self.abilities),
            self.abilities.limit_field: request.max_tokens,
        }
        if self.abilities.does("temperature"):
            body["temperature"] = request.temperature
        if self.abilities.seed != "refused":
            body["seed"] = request.seed
        if request.schema is not None and self.abilities.does("schema"):
            shape = {"name": "reply", "strict": True, "schema": request.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        return body

    async def create(self, api: Any, body: Mapping[str, Any]) -> Any:
        """See `ChatFormat.create`."""
        return await api.chat.completions.create(**body)

    def read(self, completion: Any) -> Said:
        """See `ChatFormat.read`."""
        choices = getattr(completion, "choices", None)
        if not choices:
            raise MalformedReplyError(f"a reply without choices: {_gist(completion)}")
        message, finish = getattr(choices[0], "message", None), choices[0].finish_reason
        text = getattr(message, "content", None) or ""
        if message is None or not isinstance(text, str):
            raise MalformedReplyError(f"a reply without a message: {_gist(completion)}")
        said: Said = {"text": text, "truncated": finish == "length"}
        if thought := _thought(message):
            said["reasoning"] = thought
        refusal = getattr(message, "refusal", None)
        if isinstance(refusal, str) and refusal and not text:
            said["refused"] = refusal
        if usage := _usage(getattr(completion, "usage", None)):
            said["usage"] = usage
        return said


def _usage(usage: Any) -> SaidUsage | None:
    """Return the tokens that an endpoint reports, or None if it reports none."""
    prompt = getattr(usage, "prompt_tokens", None)
    written = getattr(usage, "completion_tokens", None)
    if not isinstance(prompt, int) or not isinstance(written, int) or min(prompt, written) < 0:
        return None
    details = getattr(usage, "prompt_tokens_details", None)
    cached = getattr(details, "cached_tokens", None) or 0
    return SaidUsage(input=prompt, output=written, cached=min(cached, prompt))


def _thought(message: Any) -> str:
    """Return the reasoning in an endpoint's own field, under either of its common names."""
    said = (getattr(message, name, None) for name in ("reasoning_content", "reasoning"))
    return next((text for text in said if isinstance(text, str)), "")


def _gist(completion: Any) -> str:
    """Return what came instead of a reply: an error in a body with status 200, or a page."""
    if isinstance(completion, str):
        return repr(completion[:200])
    error = getattr(completion, "error", None)
    return str(error)[:200] if error else "is it an endpoint for chats?"
