"""Refuse what the engine of a model cannot do, and write requests in the form that it reads.

`llmpipe.backends.llama_cpp.engines` lists the routes and fields of each engine. A schema becomes a
grammar inside llama-cpp-python by a converter that ignores some keywords; these are refused here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from llmpipe.backends.llama_cpp.engines import Engine
from llmpipe.web.errors import ApiError, unsupported
from llmpipe.web.request_fields import requested_fields

IGNORED = (
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "pattern", "format",
    "prefixItems", "$ref",
)  # fmt: skip
"""Keywords that the converter ignores, or reads otherwise than llama.cpp's server."""
WITHIN = {"minItems": "items", "maxItems": "items"}
"""Keywords that have an effect only beside another one."""


def require_fields(engine: Engine, path: str, data: Any, known: Collection[str]) -> None:
    """Require that an engine obeys the fields of a request.

    Args:
        engine: The engine.
        path: The route.
        data: The request; what is not an object is refused later.
        known: The fields that the route supports with any engine.

    Raises:
        ApiError: The engine lacks the route or a field.
    """
    if engine.routes is None or not isinstance(data, dict):
        return
    if path not in engine.routes:
        raise unsupported(f"{path} with the engine {engine.name}; xllamacpp has it")
    for name in requested_fields(data, set(known)):
        if name in known and name not in engine.routes[path]:
            raise unsupported(f"`{name}` with the engine {engine.name}; xllamacpp obeys it")


def engine_fields(engine: Engine, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a checked request in the form that an engine reads.

    Raises:
        ApiError: The engine would not hold the answer to the schema.
    """
    if engine.routes is None:
        return fields
    kept = {name: value for name, value in fields.items() if name != "response_format"}
    shape = fields.get("response_format")
    if shape is not None and shape["type"] != "text":
        kept["json_schema"] = _schema_of(shape)
    if "json_schema" in kept:
        for place, why in _unconverted(kept["json_schema"], "schema"):
            told = f"{place}: {why} with the engine {engine.name}"
            raise ApiError(400, "unsupported_schema", told, reason="a JSON Schema cannot be used")
    return kept


def _schema_of(shape: Mapping[str, Any]) -> Any:
    if shape["type"] == "json_object":
        return shape.get("schema") or {"type": "object"}
    return shape["json_schema"]["schema"]


def _unconverted(schema: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield the places of a schema that the converter would ignore, and why."""
    if not isinstance(schema, dict):
        yield place, "a schema that is true or false is not enforced"
        return
    for name in IGNORED:
        if name in schema:
            yield f"{place}.{name}", "this keyword is not enforced"
    for name, needed in WITHIN.items():
        if name in schema and needed not in schema:
            yield f"{place}.{name}", f"this keyword is not enforced without {needed}"
    if isinstance(schema.get("type"), list) and len(schema) > 1:
        yield f"{place}.type", "other keywords beside a list of types are not enforced"
    if schema.get("items") == {}:
        yield f"{place}.items", "an empty schema is not enforced"
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in properties:
            yield f"{place}.required", f"{name!r} is not among the properties, so not enforced"
    for name, below in properties.items():
        yield from _unconverted(below, f"{place}.properties.{name}")
    for name in ("anyOf", "oneOf"):
        for at, below in enumerate(schema.get(name, ())):
            yield from _unconverted(below, f"{place}.{name}[{at}]")
    for name in ("items", "additionalProperties"):
        if not isinstance(schema.get(name, True), bool):
            yield from _unconverted(schema[name], f"{place}.{name}")
