"""Hints for a value or a key that the schema of a stage does not know."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from llmpipe.backends.axolotl.names import COMMON, ELSEWHERE
from llmpipe.errors import Location, did_you_mean
from llmpipe.registry import config_class, stage_class, variant_names

_SERVERS = {
    "ollama": 11434,
    "vllm": 8000,
    "sglang": 30000,
    "lmstudio": 1234,
    "tgi": 8080,
    "llamaserver": 8080,
    "llamafile": 8080,
    "localai": 8080,
    "litellm": 4000,
    "koboldcpp": 5001,
    "textgenerationwebui": 5000,
    "tabbyapi": 5000,
}
"""Programs that serve a model by OpenAI's protocol, each with its default port."""
_SERVICES = {
    "openrouter": "https://openrouter.ai/api/v1",
    "groq": "https://api.groq.com/openai/v1",
    "together": "https://api.together.xyz/v1",
    "mistral": "https://api.mistral.ai/v1",
    "deepseek": "https://api.deepseek.com/v1",
    "gemini": "https://generativelanguage.googleapis.com/v1beta/openai",
    "anthropic": "https://api.anthropic.com/v1",
    "azure": "https://NAME.openai.azure.com/openai/v1",
}
"""Services with that protocol."""


def other_engine(error: Any) -> str | None:
    """Return the hint for a program or service that is not an engine by that name."""
    allowed = error.validator_value if error.validator == "enum" else ()
    if "openai" not in allowed or not isinstance(error.instance, str):
        return None
    name = re.sub(r"[\W_]", "", error.instance.lower())
    port, url = _SERVERS.get(name), _SERVICES.get(name)
    url = f"http://localhost:{port}/v1" if port else url
    return url and f"it speaks OpenAI's protocol: engine: openai with base_url: {url}"


def in_quotes(error: Any, where: Location) -> str | None:
    """Return how to write a number, or a word with another meaning, as a text."""
    if isinstance(error.instance, str | dict | list) or error.instance is None:
        return None
    schemas = error.schema.get("anyOf", [error.schema])
    kinds = [kind for schema in schemas for kind in _kinds(schema)]
    if "string" not in kinds or error.validator not in ("type", "anyOf"):
        return None
    start = where.column - 1
    written = where.text[start : start + where.length]
    if "${" in written:  # quoted or not, it has the parameter's own type
        return "write the parameter's value in quotes"
    return f'write it in quotes: "{written or error.instance}"'


def _kinds(schema: dict[str, Any]) -> list[str]:
    kind = schema.get("type", [])
    return kind if isinstance(kind, list) else [kind]


def of_another_variant(stage: Any, key: str) -> str | None:
    """Return, as a hint, the variant of the stage's kind that has an unknown key."""
    try:
        kind = stage_class(stage["kind"])
    except KeyError:
        return None  # not a stage, but the top level of the spec
    if kind.variants is None:
        return None
    field = kind.variants.field
    others = (name for name in variant_names(kind) if name != stage.get(field))
    having = [name for name in others if key in config_class(kind, name).__struct_fields__]
    return f"it belongs to {field}: {' or '.join(having)}; remove it" if having else None


def for_unknown(
    key: str, value: Any, schema: dict[str, Any], known: Collection[str], top: bool
) -> str:
    """Return what a key may have been meant for.

    Args:
        key: The key that is unknown in its place.
        value: Its value.
        schema: The whole schema of the stage or document.
        known: The keys that are known in this place.
        top: Whether the place is the top level of the stage or document.
    """
    if top and "stages" in known and isinstance(value, dict) and "kind" in value:
        return "a stage belongs under `stages:`, indented"
    blocks = sorted(set(_blocks(key, schema, schema, ()))) if top else []
    name = ELSEWHERE.get(key, key)
    takes_settings = top and "axolotl" in known
    if blocks:
        hint = _belongs(min(blocks, key=len), key)
    elif takes_settings and name in COMMON:
        hint = _belongs(("axolotl",), name)
    elif close := did_you_mean(key, known):
        hint = close
    else:
        setting = f"; a setting of Axolotl is written axolotl.{name}" if takes_settings else ""
        hint = f"known: {', '.join(known)}{setting}"
    return hint


def _belongs(block: tuple[str, ...], key: str) -> str:
    outer = ".".join(block)
    return f"did you mean {outer}.{key}? It belongs in the block {outer}"


def _blocks(
    key: str, schema: dict[str, Any], root: dict[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    """Yield the blocks below a schema that know a key, at most two levels deep."""
    for reference in _references(schema):
        properties = root["$defs"].get(reference.rpartition("/")[2], {}).get("properties", {})
        if path and key in properties:
            yield path
        for name, field in properties.items() if len(path) < 2 else ():
            yield from _blocks(key, field, root, (*path, name))


def _references(schema: dict[str, Any]) -> Iterator[str]:
    for choice in (schema, *schema.get("anyOf", ())):
        if "$ref" in choice:
            yield choice["$ref"]
