"""API keys: what can be one, and how they stay out of messages."""

from __future__ import annotations

from llmpipe.errors import StageError

NO_KEY = "none"
"""What is sent where there is no key: clients insist on sending one."""
SHORTEST_SECRET = 3
"""Characters below which a key is no secret: it would be found in every message."""


def clean_key(key: str, name: str) -> str:
    """Give a key without the space around it: files and clipboards add a line break.

    ``name`` is what messages call it.

    Raises:
        StageError: nothing is left, or it cannot be sent in a header.
    """
    key = key.strip()
    if not key:
        raise StageError(f"{name} is empty")
    if not (key.isascii() and key.isprintable()):
        raise StageError(
            f"{name} has characters that cannot be sent",
            hint="keys are of ASCII's letters, digits and signs; copy it once more",
        )
    return key


def without_key(text: str, key: str) -> str:
    """Give a text with the key taken out, be it written as it is or as Python quotes it."""
    if key == NO_KEY or len(key) < SHORTEST_SECRET:
        return text
    return text.replace(key, "[key]").replace(repr(key)[1:-1], "[key]")
