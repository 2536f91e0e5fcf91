"""Mark a response as incomplete if its answer was cut.

llama.cpp says ``completed`` of every response, also where its answer reached ``max_output_tokens``
or the end of the context, and a caller would take half a JSON text for the whole. The count of
tokens shows it. An answer that ends by itself exactly at the limit counts as cut, because llama.cpp
does not tell these apart.

In a stream, the last item ends in an event before that. This event is held back until the next one
shows whether the item was cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

COMPLETED, INCOMPLETE = "completed", "incomplete"
EVENT = "response."
"""The beginning of the last event's type, before its status."""
ITEM_DONE = "response.output_item.done"
"""The type of the event that ends an item."""


class Unfinished:
    """Corrects the status of one response, and the type of the last event of a stream.

    Args:
        limit: ``max_output_tokens`` of the request.
        context: The tokens of a whole conversation.
    """

    marks = (b"{",)  # every event: it shows that the one before it was not the last

    def __init__(self, limit: int | None, context: int) -> None:
        self._limit = limit
        self._context = context
        self._held: dict[str, Any] | None = None

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

    def of_event(self, told: dict[str, Any]) -> Sequence[dict[str, Any]]:
        """Return an event after the one that was held back, with their true status."""
        held, self._held = self._held, None
        response = told.get("response")
        if told.get("type") == ITEM_DONE:
            self._held = told
            return () if held is None else (held,)
        if told.get("type") == f"{EVENT}{COMPLETED}" and isinstance(response, dict):
            response = self.of_reply(response)
            told = told | {"type": f"{EVENT}{response['status']}", "response": response}
            if held is not None and response["status"] == INCOMPLETE:
                held = held | {"item": held["item"] | {"status": INCOMPLETE}}
        return (told,) if held is None else (held, told)

    def _is_cut(self, usage: dict[str, Any]) -> bool:
        written, total = usage.get("output_tokens", 0), usage.get("total_tokens", 0)
        return total >= self._context or (self._limit is not None and written >= self._limit)
