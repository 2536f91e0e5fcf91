"""Write the name of an adapter into replies, where llama.cpp writes the name of its base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Renamed:
    """Replaces the name of the model in a reply, or in the events of a stream."""

    marks = (b'"model"',)

    def __init__(self, name: str) -> None:
        self._name = name

    def of_reply(self, reply: dict[str, Any]) -> dict[str, Any]:
        """Return a reply, or the data of an event, with the name."""
        kept = {**reply, "model": self._name} if "model" in reply else dict(reply)
        if isinstance(kept.get("response"), dict):
            kept["response"] = self.of_reply(kept["response"])
        return kept

    def of_event(self, told: dict[str, Any]) -> Sequence[dict[str, Any]]:
        """See `llmpipe.web.model.edits.Edit.of_event`."""
        return (self.of_reply(told),)
