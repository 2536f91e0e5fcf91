"""Drop the fields of a request that ask for nothing.

Clients send many such fields: null, an empty list, OpenAI's default value, and the empty fields of
an earlier answer that they send back. llama.cpp must not see them, because it fails on a null in a
message or a tool (status 500).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmpipe.web.errors import unsupported

NO_EFFECT = frozenset(
    ("metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "user")
)
"""OpenAI's fields that never change an answer. They are accepted and dropped."""
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
"""Fields of OpenAI and llama.cpp that this service does not support, with the values that ask for
nothing."""
NOTHING = frozenset(("grammar", "lora", "reasoning", "stream_options", "text", "tools"))
"""Fields that ask for nothing when they are empty."""
OBJECTS = (
    "input", "messages", "reasoning", "response_format", "stream_options", "text", "tool_choice",
    "tools",
)  # fmt: skip
"""Fields with nested fields, of which the null ones are dropped."""
VALUES = frozenset(("arguments", "parameters", "schema"))
"""Fields that contain the caller's own JSON, in which null is a value."""
DEEPEST = 8
"""The nesting depth down to the deepest field that is read."""
TELLING = frozenset(
    ("arguments", "call_id", "content", "output", "role", "summary", "text", "tool_call_id", "type")
)
"""Fields of a message and its parts that have a meaning, or are wrong, when they are empty."""


def requested_fields(
    data: Mapping[str, Any],
    known: set[str],
    refused: Mapping[str, tuple[Any, ...]] = REFUSED,
) -> dict[str, Any]:
    """Return the fields of a request without those that ask for nothing.

    Args:
        data: The request.
        known: The names of the fields that the route supports.
        refused: Unsupported fields, with the values that ask for nothing.

    Raises:
        ApiError: A field asks for something unsupported.
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
    """Drop null fields, except in the caller's own JSON."""
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
    """Drop the empty fields of messages, which clients send back from an answer."""
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
