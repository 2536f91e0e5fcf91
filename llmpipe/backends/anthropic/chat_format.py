"""Chats as Anthropic's Messages API takes them and replies to them.

A JSON Schema is asked for as the input of a tool that the model must call. The API knows no seed:
draws differ by chance alone, and only the journal gives the same replies again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmpipe.backends.openai.chat_requests import Abilities, ChatRequest, Said, with_words
from llmpipe.backends.openai.client import MalformedReplyError
from llmpipe.backends.openai.sdk import ANTHROPIC, Sdk

TOOL = "reply"
"""The name of the tool whose input is the reply."""
CUT = ("max_tokens", "model_context_window_exceeded")
"""The reasons to stop that mean that a reply is not complete."""
ANTHROPIC_ABILITIES = Abilities(seed="refused", logprobs="refused", many="refused")
"""What the API is known to do."""
API = "https://api.anthropic.com"
"""Where the API is."""


@dataclass(slots=True)
class AnthropicFormat:
    """The format of ``/v1/messages``."""

    abilities: Abilities = ANTHROPIC_ABILITIES
    sdk: Sdk = ANTHROPIC

    def body(self, request: ChatRequest) -> dict[str, Any]:
        """See `ChatFormat.body`."""
        messages = with_words(request, self.abilities)
        system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
        body: dict[str, Any] = {
            "messages": [message for message in messages if message["role"] != "system"],
            "max_tokens": request.max_tokens,
        }
        if self.abilities.does("temperature"):  # the SDK has no argument for it any more
            body["extra_body"] = {"temperature": min(1.0, request.temperature)}
        if system:
            body["system"] = system
        if request.schema is not None and self.abilities.does("schema"):
            what = "Give the reply. Always call this tool, once."
            body["tools"] = [
                {"name": TOOL, "description": what, "input_schema": dict(request.schema)}
            ]
            body["tool_choice"] = {"type": "tool", "name": TOOL}
        return body

    async def create(self, api: Any, body: Mapping[str, Any]) -> Any:
        """See `ChatFormat.create`."""
        return await api.messages.create(**body)

    def read(self, completion: Any) -> Said:
        """See `ChatFormat.read`."""
        blocks, reason = getattr(completion, "content", None), _field(completion, "stop_reason")
        if not isinstance(blocks, list):
            raise MalformedReplyError(f"a reply without content: {str(completion)[:200]!r}")
        said: Said = {"text": _text(blocks), "truncated": reason in CUT}
        if reason == "refusal" and not said["text"]:
            said["refused"] = "stop_reason: refusal"
        if thought := "".join(_field(b, "thinking") or "" for b in blocks if _is(b, "thinking")):
            said["reasoning"] = thought
        usage = getattr(completion, "usage", None)
        if usage is not None and isinstance(_field(usage, "output_tokens"), int):
            cached = _field(usage, "cache_read_input_tokens") or 0
            written = _field(usage, "cache_creation_input_tokens") or 0
            whole = (_field(usage, "input_tokens") or 0) + cached + written
            said["usage"] = {"input": whole, "output": usage.output_tokens, "cached": cached}
        return said


def _text(blocks: list[Any]) -> str:
    """Return the text of a reply: the tool's input as JSON, if the model called it."""
    called = next((b for b in blocks if _is(b, "tool_use") and _field(b, "name") == TOOL), None)
    if called is not None:
        return json.dumps(called.input, ensure_ascii=False)
    return "".join(_field(block, "text") or "" for block in blocks if _is(block, "text"))


def _is(block: Any, kind: str) -> bool:
    return bool(_field(block, "type") == kind)


def _field(of: Any, name: str) -> Any:
    return getattr(of, name, None)
