"""Find keywords of a JSON Schema that no answer can satisfy: bounds, choices and references."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from llmpipe.web.model.patterns import PatternError, repetitions

MOST_REPETITIONS = 10_000
"""The maximum number of characters or items that a bound or a pattern may count."""
LARGEST_BOUND = 2**53
"""The limit up to which all programs read whole numbers in JSON exactly."""
REFERENCED = re.compile(r"(?!oneOf$)[A-Za-z0-9_.$-]+")
"""A step of a reference that llama.cpp and llguidance read the same. (``oneOf`` is rewritten.)"""
COUNTS = (("minLength", "maxLength"), ("minItems", "maxItems"))
LOWS = {"minimum": 0, "exclusiveMinimum": 1}
HIGHS = {"maximum": 0, "exclusiveMaximum": 1}
HOLDS: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def weight(schema: Mapping[str, Any]) -> int:
    """Return how large a schema's grammar is, without its nested schemas."""
    counts = [schema[name] for pair in COUNTS for name in pair if _is_count(schema.get(name))]
    choices = schema.get("enum")
    return 1 + max(counts, default=0) + (len(choices) if isinstance(choices, list) else 0)


def unsound(schema: Mapping[str, Any], places: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield the keywords that no answer can satisfy, as (keyword, reason).

    ``places`` are the schemas that a reference may name.
    """
    for low, high in COUNTS:
        yield from _of_counts(schema, low, high)
    yield from _of_integers(schema)
    for name in ("anyOf", "oneOf", "enum"):
        given = schema.get(name)
        if name in schema and not isinstance(given, list):
            yield name, "must be a list"
        elif given == []:
            yield name, "must not be empty"
    if "type" in schema:
        yield from _of_types(schema["type"])
    if not isinstance(schema.get("prefixItems", []), list):
        yield "prefixItems", "must be a list of schemas"
    for name in ("properties", "$defs", "definitions"):
        if not isinstance(schema.get(name, {}), dict):
            yield name, "must be an object"
    required = schema.get("required", [])
    if not (isinstance(required, list) and all(isinstance(name, str) for name in required)):
        yield "required", "must be a list of names"
    named = schema.get("$ref", "")
    if "$ref" in schema and not (isinstance(named, str) and named in places):
        yield "$ref", "must name a schema inside this one, such as #/$defs/NAME (A-Z a-z 0-9 _ . -)"
    if "pattern" in schema:
        yield from _of_pattern(schema["pattern"])


def mistyped(
    keyword: str, values: list[Any], kinds: str | list[str] | None
) -> Iterator[tuple[str, str]]:
    """Yield the values that have none of the schema's types, as (keyword, reason).

    ``kinds`` are the types of a schema without `unsound` keywords.
    """
    names = [kinds] if isinstance(kinds, str) else kinds or HOLDS
    held = {each for name in names for each in HOLDS[name]}
    for value in values:
        if type(value) not in held:
            yield keyword, f"{value!r} is not of the type {' or '.join(names)}"


def _of_types(given: Any) -> Iterator[tuple[str, str]]:
    if given == []:
        yield "type", "must not be empty"
    for name in given if isinstance(given, list) else [given]:
        if not isinstance(name, str) or name not in HOLDS:
            yield (
                "type",
                f"{name!r} is not a type of JSON Schema; it must be one of {', '.join(HOLDS)}",
            )


def _of_counts(schema: Mapping[str, Any], low: str, high: str) -> Iterator[tuple[str, str]]:
    for name in (low, high):
        if name not in schema:
            continue
        if not _is_count(schema[name]):
            yield name, "must be a whole number from 0"
        elif schema[name] > MOST_REPETITIONS:
            yield name, f"must be {MOST_REPETITIONS:,} at most"
    if _is_count(schema.get(low)) and _is_count(schema.get(high)) and schema[low] > schema[high]:
        yield high, f"must not be less than {low}"


def _of_integers(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if schema.get("type") != "integer" and not (
        isinstance(schema.get("type"), list) and "integer" in schema["type"]
    ):
        return  # for other types they have no effect
    for name in (*LOWS, *HIGHS):
        value = schema.get(name, 0)
        if type(value) is not int or abs(value) > LARGEST_BOUND:
            yield name, f"must be a whole number from {-LARGEST_BOUND} to {LARGEST_BOUND}"
            return
    low = max((schema[name] + by for name, by in LOWS.items() if name in schema), default=None)
    high = min((schema[name] - by for name, by in HIGHS.items() if name in schema), default=None)
    if low is not None and high is not None and low > high:
        yield next(name for name in HIGHS if name in schema), "leaves no number"


def _of_pattern(pattern: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(pattern, str):
        yield "pattern", "must be a text"
        return
    try:
        count = repetitions(pattern)
    except PatternError as error:
        yield "pattern", str(error)
        return
    if count > MOST_REPETITIONS:
        yield "pattern", f"repeats more than {MOST_REPETITIONS:,} characters"


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0
