"""Remove from a reply how much of its prompt was cached.

Callers share the slots' caches, so this count reveals how other callers' prompts begin. So do the
number of prompt tokens that were computed and the time for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

DETAILS = ("prompt_tokens_details", "input_tokens_details")
CACHED = "cached_tokens"
TELLING = ("cache_", "prompt_")
"""The prefixes of such values among the timings."""


class WithoutCached:
    """Removes these values wherever llama.cpp puts them. OpenAI's required fields become 0."""

    marks = (b'"timings"', b'"usage"', b'"prompt_progress"')

    def of_reply(self, reply: dict[str, Any]) -> dict[str, Any]:
        """Return a reply, or the data of an event, without these values."""
        kept = {name: value for name, value in reply.items() if name != "prompt_progress"}
        if isinstance(kept.get("timings"), dict):
            timings = kept["timings"].items()
            kept["timings"] = {k: v for k, v in timings if not k.startswith(TELLING)}
        if isinstance(kept.get("usage"), dict):
            kept["usage"] = {k: _told(k, v) for k, v in kept["usage"].items()}
        if isinstance(kept.get("response"), dict):
            kept["response"] = self.of_reply(kept["response"])
        return kept

    def of_event(self, told: dict[str, Any]) -> Sequence[dict[str, Any]]:
        """See `llmpipe.web.model.edits.Edit.of_event`."""
        return (self.of_reply(told),)


def _told(name: str, value: Any) -> Any:
    return {**value, CACHED: 0} if name in DETAILS and isinstance(value, dict) else value
