"""Small functions on texts that the methods and the loop share."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from llmpipe.errors import is_text


def draw_number(*parts: int | str) -> int:
    """Return a number below 2**31 that depends on all the parts and on nothing else."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def read_field(text: str, name: str, kind: type) -> Any | None:
    """Return a field of a JSON reply, or None when it is missing, of another type, or no text.

    An endpoint that does not constrain its decoding may wrap the object in words or a code fence:
    only the text between the first and the last brace is read. Small models write half of a
    surrogate pair (``\\ud83d``), which no file of rows can hold.
    """
    start, end = text.find("{"), text.rfind("}")
    try:
        value = json.loads(text[start : end + 1])[name] if start >= 0 else None
    except (ValueError, KeyError, RecursionError):
        return None
    if not isinstance(value, kind) or not is_text(json.dumps(value, ensure_ascii=False)):
        return None
    return value
