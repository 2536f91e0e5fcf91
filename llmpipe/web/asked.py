"""What a request asks for, without what asks for nothing.

Clients send many fields that say nothing: null, an empty list, the value that is OpenAI's default,
and the empty fields of an earlier answer, sent back. They are left out. llama.cpp must not see them
either: it fails on a null in a message or a tool (status 500).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmpipe.web.errors import unsupported

NO_EFFECT = frozenset(
    ("metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "user")
)
"""Fields of OpenAI's that change no answer anywhere: they are taken, and dropped."""
REFUSED: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "background": (False,),
    "best_of": (1,),
    "conversation": (),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "include": ([],),
    "lora": ([],),
    "max_tool_calls": (),
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "prediction": (),
    "previous_response_id": ("",),
    "prompt": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Fields of OpenAI's, and of llama.cpp's, that cannot be had here, with the values that ask for
nothing."""
NOTHING = frozenset(("grammar", "reasoning", "stream_options", "text", "tools"))
"""Fields that ask for nothing when they are empty."""
OBJECTS = (
    "input", "messages", "reasoning", "response_format", "stream_options", "text", "tool_choice",
    "tools",
)  # fmt: skip
"""Fields with fields of their own, of which the null ones are left out."""
VALUES = frozenset(("arguments", "parameters", "schema"))
"""Fields whose value is JSON of the caller's, in which null is a value."""
DEEPEST = 8
"""Objects and lists inside one another, down to the last field that is heeded."""
TELLING = frozenset(
    ("arguments", "call_id", "content", "output", "role", "summary", "text", "tool_call_id", "type")
)
"""Fields of a message, and of its parts, that say something, or are wrong, when they are empty."""


def asked(
    data: Mapping[str, Any],
    known: set[str],
    refused: Mapping[str, tuple[Any, ...]] = REFUSED,
) -> dict[str, Any]:
    """Return the fields of a request without those that ask for nothing.

    Args:
        data: the request.
        known: the names of the fields that its route knows.
        refused: fields that cannot be had, with the values that ask for nothing.

    Raises:
        ApiError: a field asks for what cannot be had.
    """
    fields = {}
    for name, value in data.items():
        if value is None or (name in NO_EFFECT and name not in known):
            continue
        if name in refused and name not in known:
            if value not in refused[name]:
                raise unsupported(f"`{name}`" + _but(refused[name]))
            continue
        kept = _without_nulls(value, DEEPEST) if name in OBJECTS else value
        if name in known and name in NOTHING and kept in ("", [], {}):
            continue
        fields[name] = _messages(kept) if name in ("messages", "input") else kept
    return fields


def _without_nulls(value: Any, depth: int) -> Any:
    """Leave out the fields that are null, but in JSON that is the caller's own."""
    if depth and isinstance(value, list):
        return [_without_nulls(each, depth - 1) for each in value]
    if depth and isinstance(value, dict):
        return {
            name: each if name in VALUES else _without_nulls(each, depth - 1)
            for name, each in value.items()
            if each is not None
        }
    return value


def _messages(given: Any) -> Any:
    """Leave out the empty fields of messages, which clients send back from an answer."""
    if not isinstance(given, list):
        return given
    return [_message(each) if isinstance(each, dict) else each for each in given]


def _message(given: Mapping[str, Any]) -> dict[str, Any]:
    message = _telling(given)
    if isinstance(message.get("content"), list):
        parts = message["content"]
        message["content"] = [_telling(each) if isinstance(each, dict) else each for each in parts]
    return message


def _telling(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in given.items() if name in TELLING or value not in ("", [], {})
    }


def _but(harmless: tuple[Any, ...]) -> str:
    return f" other than {' or '.join(json.dumps(each) for each in harmless)}" if harmless else ""
