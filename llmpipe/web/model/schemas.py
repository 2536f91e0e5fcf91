"""Check JSON Schemas, because llama.cpp silently ignores keywords that it does not support.

`require_enforced` accepts a schema if every keyword in it is enforced. Annotations enforce nothing
and are allowed anywhere. As in llama.cpp, ``oneOf`` is read as ``anyOf``, and an object with
``properties`` has no others unless ``additionalProperties`` allows them. `require_sound` is less
strict, for the parameters of a tool: it accepts keywords that are not enforced, but no bound,
pattern or reference that no answer can satisfy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from llmpipe.web.errors import ApiError
from llmpipe.web.model.bounds import REFERENCED, mistyped, unsound, weight
from llmpipe.web.model.patterns import unenforced

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
"""Keywords that make llama.cpp ignore all others beside them."""
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
"""Pairs of keywords of which the first makes llama.cpp ignore the second."""
DEEPEST = 64
"""The maximum nesting depth of schemas."""
HEAVIEST = 100_000
"""The maximum number of schemas, values of `enum` and repetitions together."""

Steps = tuple[str | int, ...]


def require_enforced(schema: Any, place: str) -> None:
    """Require that every keyword of a schema is enforced.

    ``place`` is the position of the schema in the request.

    Raises:
        ApiError: It is not a schema, or llama.cpp would ignore a part of it.
    """
    found = require_sound(schema, place)
    for steps, each in found.items():
        binding = {key: value for key, value in each.items() if key not in ANNOTATIONS}
        for name, problem in _problems(binding):
            raise _refusal(f"{_place(place, steps)}.{name}: {problem}")


def require_sound(schema: Any, place: str) -> Mapping[Steps, Mapping[str, Any]]:
    """Require that an answer can satisfy every bound, pattern and reference of a schema.

    Args:
        schema: The schema in the request.
        place: Its position there.

    Returns:
        The schema and all its nested schemas, by their paths.

    Raises:
        ApiError: It is not a schema, it is too large, or no answer can satisfy a part of it.
    """
    found = dict(_walk(schema, place, (), DEEPEST))
    if sum(weight(each) for each in found.values()) > HEAVIEST:
        raise _refusal(
            f"{place}: the schema is too large; its parts, values and repetitions may be"
            f" {HEAVIEST:,} together"
        )
    places = {"#/" + "/".join(map(str, steps)) for steps in found if _can_be_named(steps)}
    for steps, each in found.items():
        for name, problem in unsound(each, places):
            raise _refusal(f"{_place(place, steps)}.{name}: {problem}")
    _require_no_loop(found, place)
    return found


def _require_no_loop(found: Mapping[Steps, Mapping[str, Any]], place: str) -> None:
    """Require that no schema leads back to itself by references and choices alone."""
    names = {"#/" + "/".join(map(str, steps)): steps for steps in found}
    ways: dict[Steps, list[Steps]] = {}
    for steps, each in found.items():
        ways[steps] = [steps + step for step, _ in _below(each) if step[0] in ALONE]
        if "$ref" in each:
            ways[steps].append(names[each["$ref"]])
    try:
        TopologicalSorter(ways).prepare()
    except CycleError as error:
        where = _place(place, error.args[1][0])
        told = f"{where}: the references lead back to it, and nothing is in between"
        raise _refusal(told) from None


def _walk(
    schema: Any, place: str, steps: Steps, depth: int
) -> Iterator[tuple[Steps, Mapping[str, Any]]]:
    """Yield a schema and all its nested schemas, with their paths."""
    if not isinstance(schema, dict):
        raise _refusal(f"{_place(place, steps)}: a JSON Schema must be an object")
    if depth == 0:
        raise _refusal(f"{place}: the schema is nested too deeply")
    yield steps, schema
    for further, below in _below(schema):
        yield from _walk(below, place, steps + further, depth - 1)


def _can_be_named(steps: Steps) -> bool:
    """Return whether llama.cpp and llguidance both resolve a reference to this place."""
    return bool(steps) and all(REFERENCED.fullmatch(str(step)) for step in steps)


def _place(place: str, steps: Steps) -> str:
    return place + "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in steps)


def _problems(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the keywords that would be ignored, as (keyword, reason)."""
    for alone in ALONE:
        if alone in schema:
            yield from _ignored(schema, {alone}, f"beside {alone}")
            return
    for choice in CHOICES:
        if choice in schema:
            yield from _ignored(schema, {choice, "type"}, f"beside {choice}")
            values = schema[choice] if choice == "enum" else [schema[choice]]
            yield from mistyped(choice, values, schema.get("type"))
            return
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds] if kinds else []
    enforced = {"type"}.union(*(OF_TYPE[kind] for kind in kinds))
    where = f"for the type {' or '.join(kinds)}" if kinds else "without a type"
    yield from _ignored(schema, enforced, where)
    yield from _combinations(schema)


def _ignored(
    schema: Mapping[str, Any], enforced: set[str], where: str
) -> Iterator[tuple[str, str]]:
    for name in schema:
        if name not in enforced:
            yield name, f"llama.cpp does not enforce this {where}; leave it out"


def _combinations(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the keywords that would be ignored because of their value or of another keyword."""
    for name in schema.get("required", ()):
        if name not in schema.get("properties", {}):
            yield "required", f"{name!r} is not among the properties and would be ignored"
    if "prefixItems" in schema:
        yield from _of_tuple(schema, schema["prefixItems"])
    if schema.get("format", FORMATS[0]) not in FORMATS:
        yield "format", f"only {', '.join(FORMATS)} are enforced; leave it out, or use a pattern"
    if "pattern" in schema:
        yield from (("pattern", problem) for problem in unenforced(schema["pattern"]))
    for one, other in EXCLUSIVE:
        if one in schema and other in schema:
            yield other, f"has no effect beside {one}"


def _of_tuple(schema: Mapping[str, Any], items: list[Any]) -> Iterator[tuple[str, str]]:
    if "items" in schema:
        yield "items", "has no effect beside prefixItems, which lists all items"
    for bound in ("minItems", "maxItems"):
        if schema.get(bound, len(items)) != len(items):
            yield bound, f"has no effect beside prefixItems, which sets it to {len(items)}"


def _below(schema: Mapping[str, Any]) -> Iterator[tuple[Steps, Any]]:
    """Yield the direct subschemas of a schema, with their paths."""
    for name in ("properties", "$defs", "definitions"):
        if isinstance(schema.get(name), dict):
            yield from (((name, key), below) for key, below in schema[name].items())
    for name in ("anyOf", "oneOf", "prefixItems"):
        if isinstance(schema.get(name), list):
            yield from (((name, at), below) for at, below in enumerate(schema[name]))
    if "items" in schema:
        yield ("items",), schema["items"]
    if not isinstance(schema.get("additionalProperties", True), bool):
        yield ("additionalProperties",), schema["additionalProperties"]


def _refusal(message: str) -> ApiError:
    return ApiError(400, "unsupported_schema", message, reason="a JSON Schema cannot be used")
