"""Write the name of an adapter into replies, where llama.cpp writes the name of its base."""

from __future__ import annotations

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

    of_event = of_reply
