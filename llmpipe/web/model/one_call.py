"""Leave the first tool call alone in a reply, where a request allows no second beside it.

With ``parallel_tool_calls: false`` llama.cpp still writes several calls by the grammar of some
templates. What comes after the first one is left out here, of a whole reply and of a stream, on the
routes of chats and of responses.
"""

from __future__ import annotations

import json
from typing import Any

CALL = "function_call"
"""The type of a call among the output of a response."""
END = b"\n\n"
"""What ends an event of a stream."""


def first_alone(body: bytes) -> bytes:
    """Return a whole reply without the calls after its first."""
    return json.dumps(_FirstCall().of_reply(json.loads(body)), ensure_ascii=False).encode()


class OneCall:
    """Takes the calls after the first out of a stream, whose parts end anywhere."""

    def __init__(self) -> None:
        self._first = _FirstCall()
        self._held = b""

    def feed(self, part: bytes) -> bytes:
        """Take a part; return the events that are whole by now."""
        *whole, self._held = (self._held + part).split(END)
        return b"".join(event + END for event in map(self._kept, whole) if event)

    def close(self) -> bytes:
        """Return what came after the last whole event."""
        return self._held

    def _kept(self, event: bytes) -> bytes:
        """Return an event as it is passed on; nothing where it only tells of a further call."""
        lines = event.split(b"\n")
        for at, line in enumerate(lines):
            if line.startswith(b"data: {") and b"call" in line:
                told = self._first.of_event(json.loads(line[6:]))
                if told is None:
                    return b""
                lines[at] = b"data: " + json.dumps(told, ensure_ascii=False).encode()
        return b"\n".join(lines)


class _FirstCall:
    """Knows the first call of a response, by its id."""

    def __init__(self) -> None:
        self._id: str | None = None

    def of_reply(self, reply: dict[str, Any]) -> dict[str, Any]:
        """Return a reply of a chat or a response with its first call alone."""
        for choice in reply.get("choices") or []:
            message = choice.get("message") or {}
            if message.get("tool_calls"):
                message["tool_calls"] = message["tool_calls"][:1]
        if reply.get("output"):
            reply["output"] = [item for item in reply["output"] if not self._is_further(item)]
        return reply

    def of_event(self, told: dict[str, Any]) -> dict[str, Any] | None:
        """Return what an event tells without further calls; None where nothing is left."""
        if isinstance(told.get("response"), dict):
            return told | {"response": self.of_reply(told["response"])}
        if isinstance(told.get("item"), dict):
            return None if self._is_further(told["item"]) else told
        if str(told.get("type", "")).startswith(f"response.{CALL}"):
            return told if told.get("item_id") == self._id else None
        is_left = not told.get("choices")
        for choice in told.get("choices") or []:
            delta = choice.get("delta") or {}
            calls = delta.get("tool_calls")
            if calls:
                delta["tool_calls"] = [call for call in calls if not call.get("index")]
                if not delta["tool_calls"]:
                    del delta["tool_calls"]
            is_left = is_left or bool(delta or choice.get("finish_reason") or not calls)
        return told if is_left else None

    def _is_further(self, item: dict[str, Any]) -> bool:
        if item.get("type") != CALL:
            return False
        own = item.get("id") or item.get("call_id")
        self._id = self._id or own
        return own != self._id
