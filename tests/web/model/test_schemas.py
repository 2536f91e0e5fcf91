"""Which JSON Schemas are let through: those that llama.cpp holds an answer to, and no others."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.web.errors import ApiError
from llmpipe.web.model.schemas import require_heeded

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"title": "T", "description": "D", "type": "boolean", "default": True},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False},
        {"type": "object", "additionalProperties": {"type": "integer", "minimum": 1, "maximum": 3}},
        {"type": "array", "items": {"enum": ["a", 1]}, "minItems": 1, "maxItems": 2},
        {"type": "array", "prefixItems": [{"type": "null"}], "minItems": 1, "maxItems": 1},
        {"type": "string", "minLength": 1, "maxLength": 9},
        {"type": "string", "pattern": "^(foo|bar)[0-9]{2}\\.$"},
        {"type": "string", "format": "date-time"},
        {"type": ["string", "null"], "maxLength": 3},
        {"anyOf": [{"type": "number"}, {"$ref": "#/$defs/x"}], "$defs": {"x": {"const": 1}}},
        {"type": "string", "enum": ["a", "b"]},
    ],
)  # fmt: skip
def test_what_binds_is_let_through(schema: dict[str, Any]) -> None:
    """Also what programs make of their types, with titles, defaults and references."""
    require_heeded(schema, "schema")


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (5, "schema: a JSON Schema must be an object"),
        (True, "schema: a JSON Schema must be an object"),
        ({"type": "number", "minimum": 1}, "schema.minimum: llama.cpp holds no answer to this for the type number"),
        ({"type": "integer", "multipleOf": 5}, "schema.multipleOf"),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": 1}, "no effect beside minimum"),
        ({"type": "array", "uniqueItems": True}, "schema.uniqueItems"),
        ({"type": "array", "contains": {"const": 1}}, "schema.contains"),
        ({"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "null"}}, "no effect beside prefixItems"),
        ({"type": "array", "prefixItems": [{"type": "null"}], "minItems": 0}, "which makes it 1"),
        ({"type": "array", "items": [{"type": "null"}]}, "schema.items: a JSON Schema must be an object"),
        ({"type": "string", "format": "email"}, "only date, time, date-time, uuid are held to"),
        ({"type": "string", "pattern": "a+"}, "must begin with ^ and end with $"),
        ({"type": "string", "pattern": "^\\d$"}, "\\d is not held to"),
        ({"type": "string", "pattern": "^(?!a)b$"}, "groups that begin with (?"),
        ({"type": "string", "pattern": "^a$", "minLength": 2}, "no effect beside pattern"),
        ({"type": "object", "patternProperties": {}}, "schema.patternProperties"),
        ({"type": "object", "required": ["a"]}, "'a' is not among the properties"),
        ({"type": "object", "required": "a"}, "must be a list of names"),
        ({"type": "object", "properties": {"a": {"not": {}}}}, "schema.properties.a.not"),
        ({"anyOf": [{"type": "null"}], "type": "null"}, "schema.type: llama.cpp holds no answer to this beside anyOf"),
        ({"$ref": "#/$defs/x", "minimum": 3}, "beside $ref"),
        ({"enum": [1], "minimum": 3}, "beside enum"),
        ({"allOf": [{"type": "null"}]}, "schema.allOf"),
        ({"if": {}}, "schema.if"),
        ({"minLength": 3}, "where no type is said"),
        ({"type": "text"}, "'text' is no type of JSON Schema"),
        ({"type": [["null"]]}, "is no type of JSON Schema"),
        ({"anyOf": [{"anyOf": [{"type": "null", "x": 1}]}]}, "schema.anyOf[0].anyOf[0].x"),
    ],
)  # fmt: skip
def test_what_would_be_passed_over_is_refused(schema: Any, message: str) -> None:
    """With the place of the keyword; llama.cpp answers these with status 200, unheld."""
    with pytest.raises(ApiError) as caught:
        require_heeded(schema, "schema")
    assert message in caught.value.message


def test_a_schema_without_end_is_refused() -> None:
    """Nesting is bounded."""
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(100):
        schema = {"type": "array", "items": schema}
    with pytest.raises(ApiError, match="nested too deeply"):
        require_heeded(schema, "schema")


KEYWORDS = st.sampled_from(
    ("type", "items", "properties", "required", "anyOf", "enum", "pattern", "$defs", "prefixItems",
     "minItems", "format", "additionalProperties", "$ref", "title")
)  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["string", "object", "a", "^a$"]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYWORDS, below, max_size=4),
    max_leaves=12,
)


@given(ANYTHING)
def test_whatever_is_sent_is_judged(schema: Any) -> None:
    """Nothing that is JSON breaks the check."""
    with contextlib.suppress(ApiError):
        require_heeded(schema, "schema")
