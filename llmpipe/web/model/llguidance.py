"""Rewrite a JSON Schema so that the completion routes read it as the chat route does.

Chats use llama.cpp's own converter. On ``/completion`` and ``/v1/completions``, llguidance
compiles the schema. It drops a whole schema with an overlapping ``oneOf`` or an unknown
``$schema``, allows additional properties, and lets a list end before its ``prefixItems`` do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCHEMAS = ("$defs", "definitions", "properties")
LISTS = ("anyOf", "oneOf", "prefixItems")
ONE = ("items", "additionalProperties")
BINDING = frozenset(
    (*ONE, "$ref", "const", "enum", "exclusiveMaximum", "exclusiveMinimum", "format", "maxItems",
     "maxLength", "maximum", "minItems", "minLength", "minimum", "pattern", "required", "type")
)  # fmt: skip


def for_llguidance(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema that `require_enforced` accepts, rewritten for llguidance."""
    worded: dict[str, Any] = {}
    for name, value in schema.items():
        if name in SCHEMAS:
            worded[name] = {key: for_llguidance(below) for key, below in value.items()}
        elif name in LISTS:
            kept = "anyOf" if name == "oneOf" else name
            worded[kept] = [for_llguidance(below) for below in value]
        elif name in ONE and isinstance(value, dict):
            worded[name] = for_llguidance(value)
        elif name in BINDING:
            worded[name] = value
    if "properties" in schema:
        worded.setdefault("additionalProperties", False)
    if "prefixItems" in schema:
        count = len(schema["prefixItems"])
        worded |= {"items": False, "minItems": count, "maxItems": count}
    return worded
