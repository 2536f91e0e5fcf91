"""Mark a response as incomplete if its answer was cut.

llama.cpp says ``completed`` of every response, also where its answer reached ``max_output_tokens``
or the end of the context, and a caller would take half a JSON text for the whole. The count of
tokens shows it. An answer that ends by itself exactly at the limit counts as cut, because llama.cpp
does not tell these apart.
"""

from __future__ import annotations

from typing import Any

COMPLETED, INCOMPLETE = "completed", "incomplete"
EVENT = "response."
"""The beginning of the last event's type, before its status."""


class Unfinished:
    """Corrects the status of one response, and the type of the last event of a stream.

    Args:
        limit: ``max_output_tokens`` of the request.
        context: The tokens of a whole conversation.
    """

    marks = (f'"{EVENT}{COMPLETED}"'.encode(),)

    def __init__(self, limit: int | None, context: int) -> None:
        self._limit = limit
        self._context = context

    def of_reply(self, reply: dict[str, Any]) -> dict[str, Any]:
        """Return a whole response, with its true status."""
        if reply.get("status") != COMPLETED or not self._is_cut(reply.get("usage") or {}):
            return reply
        output = list(reply.get("output") or [])
        if output:
            output[-1] = output[-1] | {"status": INCOMPLETE}
        return {name: value for name, value in reply.items() if name != "completed_at"} | {
            "status": INCOMPLETE,
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": output,
        }

    def of_event(self, told: dict[str, Any]) -> dict[str, Any]:
        """Return the last event, with the true status of its response."""
        response = told.get("response")
        if told.get("type") != f"{EVENT}{COMPLETED}" or not isinstance(response, dict):
            return told
        response = self.of_reply(response)
        return told | {"type": f"{EVENT}{response['status']}", "response": response}

    def _is_cut(self, usage: dict[str, Any]) -> bool:
        written, total = usage.get("output_tokens", 0), usage.get("total_tokens", 0)
        return total >= self._context or (self._limit is not None and written >= self._limit)
