"""Check API keys, and keep them out of messages."""

from __future__ import annotations

from llmpipe.errors import StageError

NO_KEY = "none"
"""The key that is sent if there is none, because clients always send one."""
SHORTEST_SECRET = 3
"""The length below which a key is not a secret: it would match in every message."""


def clean_key(key: str, name: str) -> str:
    """Return a key without surrounding whitespace, which files and clipboards add.

    ``name`` is the key's name in messages.

    Raises:
        StageError: The key is empty, or cannot be sent in a header.
    """
    key = key.strip()
    if not key:
        raise StageError(f"{name} is empty")
    if not (key.isascii() and key.isprintable()):
        raise StageError(
            f"{name} has characters that cannot be sent",
            hint="keys consist of ASCII letters, digits and signs; copy it again",
        )
    return key


def without_key(text: str, key: str) -> str:
    """Return a text with the key replaced, both in plain form and as Python quotes it."""
    if key == NO_KEY or len(key) < SHORTEST_SECRET:
        return text
    return text.replace(key, "[key]").replace(repr(key)[1:-1], "[key]")
