"""Which JSON Schemas llama.cpp holds an answer to; it passes other keywords over without a word.

`require_heeded` lets a schema through when every keyword in it binds. Annotations bind nobody and
may stand anywhere. ``oneOf`` is read as ``anyOf``, and an object with ``properties`` has no others
unless ``additionalProperties`` says so: both are llama.cpp's reading, stricter or as strict.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from llmpipe.web.errors import ApiError

ANNOTATIONS = frozenset(
    ("$comment", "$defs", "$id", "$schema", "default", "definitions", "deprecated", "description",
     "discriminator", "example", "examples", "readOnly", "title", "writeOnly")
)  # fmt: skip
OF_TYPE = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "number": set[str](),
    "boolean": set[str](),
    "null": set[str](),
}
ALONE = ("$ref", "anyOf", "oneOf")
"""Keywords beside which llama.cpp reads no other."""
CHOICES = ("const", "enum")
FORMATS = ("date", "time", "date-time", "uuid")
EXCLUSIVE = (
    ("pattern", "format"),
    ("pattern", "minLength"),
    ("pattern", "maxLength"),
    ("format", "minLength"),
    ("format", "maxLength"),
    ("minimum", "exclusiveMinimum"),
    ("maximum", "exclusiveMaximum"),
)
"""Keywords of which the first makes llama.cpp pass the second over."""
DEEPEST = 64
"""Schemas inside one another."""


def require_heeded(schema: Any, place: str) -> None:
    """Make sure that an answer will be held to the whole of a schema.

    ``place`` is where the schema stands in the request.

    Raises:
        ApiError: it is no schema, or llama.cpp would pass a part of it over.
    """
    _check(schema, place, DEEPEST)


def _check(schema: Any, place: str, depth: int) -> None:
    if not isinstance(schema, dict):
        raise _refusal(f"{place}: a JSON Schema must be an object")
    if depth == 0:
        raise _refusal(f"{place}: the schema is nested too deeply")
    binding = {key: value for key, value in schema.items() if key not in ANNOTATIONS}
    for name, problem in _problems(binding):
        raise _refusal(f"{place}.{name}: {problem}")
    for step, below in _below(schema):
        _check(below, f"{place}.{step}", depth - 1)


def _problems(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """List the keywords that would be passed over, as (keyword, why)."""
    for alone in ALONE:
        if alone in schema:
            yield from _ignored(schema, {alone}, f"beside {alone}")
            return
    for choice in CHOICES:
        if choice in schema:
            yield from _ignored(schema, {choice, "type"}, f"beside {choice}")
            return
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds] if kinds else []
    unknown = [kind for kind in kinds if not isinstance(kind, str) or kind not in OF_TYPE]
    if unknown:
        yield "type", f"{unknown[0]!r} is no type of JSON Schema"
        return
    heeded = {"type"}.union(*(OF_TYPE[kind] for kind in kinds))
    where = f"for the type {' or '.join(kinds)}" if kinds else "where no type is said"
    yield from _ignored(schema, heeded, where)
    yield from _combinations(schema)


def _ignored(schema: Mapping[str, Any], heeded: set[str], where: str) -> Iterator[tuple[str, str]]:
    for name in schema:
        if name not in heeded:
            yield name, f"llama.cpp holds no answer to this {where}; leave it out"


def _combinations(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """List what would be passed over because of its value, or of what stands beside it."""
    declared, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(declared, dict):
        yield "properties", "must be an object"
    elif not isinstance(required, list):
        yield "required", "must be a list of names"
    else:
        for name in required:
            if name not in declared:
                yield "required", f"{name!r} is not among the properties and would be passed over"
    if "prefixItems" in schema:
        yield from _of_tuple(schema, schema["prefixItems"])
    if schema.get("format", FORMATS[0]) not in FORMATS:
        yield "format", f"only {', '.join(FORMATS)} are held to; leave it out, or use a pattern"
    if "pattern" in schema:
        yield from _of_pattern(str(schema["pattern"]))
    for one, other in EXCLUSIVE:
        if one in schema and other in schema:
            yield other, f"has no effect beside {one}"


def _of_pattern(pattern: str) -> Iterator[tuple[str, str]]:
    """List what makes llama.cpp take any text for a match."""
    if not (pattern.startswith("^") and pattern.endswith("$")):
        yield "pattern", "must begin with ^ and end with $"
    if "(?" in pattern:
        yield "pattern", "groups that begin with (? are not held to"
    if found := re.search(r"\\[A-Za-z0-9]", pattern):
        yield "pattern", f"{found[0]} is not held to; write a class such as [0-9]"


def _of_tuple(schema: Mapping[str, Any], items: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(items, list):
        yield "prefixItems", "must be a list of schemas"
        return
    if "items" in schema:
        yield "items", "has no effect beside prefixItems, which says all that there is"
    for bound in ("minItems", "maxItems"):
        if schema.get(bound, len(items)) != len(items):
            yield bound, f"has no effect beside prefixItems, which makes it {len(items)}"


def _below(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """List the schemas that stand in one, with the way to them."""
    for name in ("properties", "$defs", "definitions"):
        if isinstance(schema.get(name), dict):
            yield from ((f"{name}.{key}", below) for key, below in schema[name].items())
    for name in ("anyOf", "oneOf", "prefixItems"):
        if isinstance(schema.get(name), list):
            yield from ((f"{name}[{at}]", below) for at, below in enumerate(schema[name]))
    if "items" in schema:
        yield "items", schema["items"]
    if not isinstance(schema.get("additionalProperties", True), bool):
        yield "additionalProperties", schema["additionalProperties"]


def _refusal(message: str) -> ApiError:
    return ApiError(400, "unsupported_schema", message, reason="a JSON Schema cannot be used")
