"""Leave out of a reply how much of its prompt was computed before.

The slots' caches are shared: such a count tells a caller how the prompts of others begin. So does
how many tokens of the prompt were computed, and in how long.
"""

from __future__ import annotations

from typing import Any

DETAILS = ("prompt_tokens_details", "input_tokens_details")
CACHED = "cached_tokens"
TELLING = ("cache_", "prompt_")
"""How the names of such figures among the timings begin."""


class WithoutCached:
    """Takes the figures out, wherever llama.cpp puts them. OpenAI's required fields stay, as 0."""

    marks = (b'"timings"', b'"usage"', b'"prompt_progress"')

    def of_reply(self, reply: dict[str, Any]) -> dict[str, Any]:
        """Return a reply, or the data of an event, without the figures."""
        kept = {name: value for name, value in reply.items() if name != "prompt_progress"}
        if isinstance(kept.get("timings"), dict):
            timings = kept["timings"].items()
            kept["timings"] = {k: v for k, v in timings if not k.startswith(TELLING)}
        if isinstance(kept.get("usage"), dict):
            kept["usage"] = {k: _told(k, v) for k, v in kept["usage"].items()}
        if isinstance(kept.get("response"), dict):
            kept["response"] = self.of_reply(kept["response"])
        return kept

    of_event = of_reply


def _told(name: str, value: Any) -> Any:
    return {**value, CACHED: 0} if name in DETAILS and isinstance(value, dict) else value
