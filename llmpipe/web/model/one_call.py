"""Keep only the first tool call of a reply if the request does not allow parallel calls.

With ``parallel_tool_calls: false``, llama.cpp's grammar for some templates still allows several
calls. This edit removes the calls after the first, from whole replies and from streams, of the
chat and the responses routes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CALL = "function_call"
"""The type of a call in the output of a response."""


class OneCall:
    """Removes the calls after the first from one reply; remembers the first by its id."""

    marks = (b"call",)

    def __init__(self) -> None:
        self._id: str | None = None

    def of_reply(self, reply: dict[str, Any]) -> dict[str, Any]:
        """Return a reply of a chat or a response with only its first call."""
        for choice in reply.get("choices") or []:
            message = choice.get("message") or {}
            if message.get("tool_calls"):
                message["tool_calls"] = message["tool_calls"][:1]
        if reply.get("output"):
            reply["output"] = [item for item in reply["output"] if not self._is_further(item)]
        return reply

    def of_event(self, told: dict[str, Any]) -> Sequence[dict[str, Any]]:
        """Return an event without further calls, or none if nothing is left."""
        if isinstance(told.get("response"), dict):
            return (told | {"response": self.of_reply(told["response"])},)
        if isinstance(told.get("item"), dict):
            return () if self._is_further(told["item"]) else (told,)
        if str(told.get("type", "")).startswith(f"response.{CALL}"):
            return (told,) if told.get("item_id") == self._id else ()
        is_left = not told.get("choices")
        for choice in told.get("choices") or []:
            delta = choice.get("delta") or {}
            calls = delta.get("tool_calls")
            if calls:
                delta["tool_calls"] = [call for call in calls if not call.get("index")]
                if not delta["tool_calls"]:
                    del delta["tool_calls"]
            is_left = is_left or bool(delta or choice.get("finish_reason") or not calls)
        return (told,) if is_left else ()

    def _is_further(self, item: dict[str, Any]) -> bool:
        if item.get("type") != CALL:
            return False
        own = item.get("id") or item.get("call_id")
        self._id = self._id or own
        return own != self._id
