"""Which JSON Schemas are let through: those that llama.cpp holds an answer to, and no others."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.web.errors import ApiError
from llmpipe.web.model.llguidance import for_llguidance
from llmpipe.web.model.schemas import require_enforced, require_sound

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
    require_enforced(schema, "schema")


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (5, "schema: a JSON Schema must be an object"),
        (True, "schema: a JSON Schema must be an object"),
        ({"type": "number", "minimum": 1}, "schema.minimum: llama.cpp does not enforce this for the type number"),
        ({"type": "integer", "multipleOf": 5}, "schema.multipleOf"),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": 1}, "no effect beside minimum"),
        ({"type": "array", "uniqueItems": True}, "schema.uniqueItems"),
        ({"type": "array", "contains": {"const": 1}}, "schema.contains"),
        ({"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "null"}}, "no effect beside prefixItems"),
        ({"type": "array", "prefixItems": [{"type": "null"}], "minItems": 0}, "which sets it to 1"),
        ({"type": "array", "items": [{"type": "null"}]}, "schema.items: a JSON Schema must be an object"),
        ({"type": "string", "format": "email"}, "only date, time, date-time, uuid are enforced"),
        ({"type": "string", "pattern": "a+"}, "must begin with ^ and end with $"),
        ({"type": "string", "pattern": "^\\d$"}, "\\d is not enforced"),
        ({"type": "string", "pattern": "^(?!a)b$"}, "groups that begin with (?"),
        ({"type": "string", "pattern": "^a$", "minLength": 2}, "no effect beside pattern"),
        ({"type": "object", "patternProperties": {}}, "schema.patternProperties"),
        ({"type": "object", "required": ["a"]}, "'a' is not among the properties"),
        ({"type": "object", "required": "a"}, "must be a list of names"),
        ({"type": "object", "properties": {"a": {"not": {}}}}, "schema.properties.a.not"),
        ({"anyOf": [{"type": "null"}], "type": "null"}, "schema.type: llama.cpp does not enforce this beside anyOf"),
        ({"$ref": "#/$defs/x", "$defs": {"x": {}}, "minimum": 3}, "beside $ref"),
        ({"enum": [1], "minimum": 3}, "beside enum"),
        ({"allOf": [{"type": "null"}]}, "schema.allOf"),
        ({"if": {}}, "schema.if"),
        ({"minLength": 3}, "without a type"),
        ({"type": "text"}, "'text' is not a type of JSON Schema"),
        ({"type": [["null"]]}, "is not a type of JSON Schema"),
        ({"anyOf": [{"anyOf": [{"type": "null", "x": 1}]}]}, "schema.anyOf[0].anyOf[0].x"),
        ({"type": "integer", "enum": ["a"]}, "schema.enum: 'a' is not of the type integer"),
        ({"type": ["integer", "null"], "enum": [1, True]}, "True is not of the type integer or null"),
        ({"type": "string", "const": 1}, "schema.const: 1 is not of the type string"),
        ({"type": "string", "pattern": "^a$b$"}, "$ is enforced only at the beginning and at the end"),
        ({"type": "string", "pattern": "^(^a)$"}, "^ is enforced only at the beginning and at the end"),
        ({"type": "string", "pattern": "^a\\$"}, "must begin with ^ and end with $"),
        ({"type": "string", "pattern": "^a|b$"}, "alternatives must stand in a group"),
        ({"type": "string", "pattern": "^\\-a$"}, "\\- is not enforced; write the character itself"),
        ({"type": "string", "pattern": "^[\\^a]$"}, "\\^ is not enforced"),
        ({"type": "string", "pattern": "^\"$"}, "a quotation mark"),
        ({"type": "string", "pattern": "^a+?$"}, "leave out the last ?"),
        ({"type": "string", "pattern": "^()$"}, "a group is empty"),
    ],
)  # fmt: skip
def test_what_would_be_passed_over_is_refused(schema: Any, message: str) -> None:
    """With the place of the keyword; llama.cpp answers these with status 200, unenforced."""
    with pytest.raises(ApiError) as caught:
        require_enforced(schema, "schema")
    assert message in caught.value.message


UNSOUND: list[tuple[Any, str]] = [
    ({"type": "string", "minLength": -1}, "schema.minLength: must be a whole number from 0"),
    ({"type": "string", "minLength": 1.5}, "schema.minLength: must be a whole number from 0"),
    ({"type": "string", "maxLength": True}, "schema.maxLength: must be a whole number from 0"),
    ({"type": "string", "maxLength": "9"}, "schema.maxLength: must be a whole number from 0"),
    ({"type": "string", "maxLength": None}, "schema.maxLength: must be a whole number from 0"),
    ({"type": "string", "maxLength": 10_001}, "schema.maxLength: must be 10,000 at most"),
    ({"type": "string", "minLength": 3, "maxLength": 2}, "must not be less than minLength"),
    (
        {"type": "array", "items": {}, "minItems": 3, "maxItems": 2},
        "must not be less than minItems",
    ),
    ({"type": "array", "items": {}, "minItems": 10_001}, "schema.minItems: must be 10,000 at most"),
    ({"type": "integer", "minimum": 1.5}, "schema.minimum: must be a whole number"),
    ({"type": ["integer", "null"], "maximum": "1"}, "schema.maximum: must be a whole number"),
    ({"type": "integer", "minimum": 2**60}, "schema.minimum: must be a whole number"),
    ({"type": "integer", "minimum": 3, "maximum": 1}, "schema.maximum: leaves no number"),
    (
        {"type": "integer", "minimum": 3, "exclusiveMaximum": 3},
        "exclusiveMaximum: leaves no number",
    ),
    ({"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 4}, "leaves no number"),
    ({"type": "object", "required": "a"}, "schema.required: must be a list of names"),
    ({"type": "object", "required": [["a"]]}, "schema.required: must be a list of names"),
    ({"type": "object", "properties": []}, "schema.properties: must be an object"),
    ({"enum": []}, "schema.enum: must not be empty"),
    ({"anyOf": []}, "schema.anyOf: must not be empty"),
    ({"oneOf": {}}, "schema.oneOf: must be a list"),
    ({"type": []}, "schema.type: must not be empty"),
    ({"type": [None], "enum": [None]}, "schema.type: None is not a type of JSON Schema"),
    ({"type": None, "const": 1}, "schema.type: None is not a type of JSON Schema"),
    ({"type": {"a": 1}}, "schema.type: {'a': 1} is not a type of JSON Schema"),
    (
        {"type": ["string", "text"]},
        "schema.type: 'text' is not a type of JSON Schema; it must be one",
    ),
    ({"$ref": "#/$defs/no"}, "schema.$ref: must name a schema inside this one"),
    ({"$ref": "#"}, "schema.$ref: must name a schema inside this one"),
    ({"$ref": "http://example.org/x"}, "schema.$ref: must name a schema inside this one"),
    ({"$ref": "#/default", "default": {}}, "schema.$ref: must name a schema inside this one"),
    ({"$ref": "#/$defs/a b", "$defs": {"a b": {}}}, "schema.$ref: must name a schema"),
    ({"$ref": ["#"]}, "schema.$ref: must name a schema inside this one"),
    (
        {"$ref": "#/$defs/x", "$defs": {"x": {"$ref": "#/$defs/x"}}},
        "the references lead back to it",
    ),
    ({"type": "string", "pattern": 5}, "schema.pattern: must be a text"),
    ({"type": "string", "pattern": "^(a$"}, "a group is not closed"),
    ({"type": "string", "pattern": "^a)$"}, "a group is closed that was not opened"),
    ({"type": "string", "pattern": "^[b-a]$"}, "the range b-a ends before it begins"),
    ({"type": "string", "pattern": "^a{3,1}$"}, "{3,1} ends before it begins"),
    ({"type": "string", "pattern": "^*$"}, "nothing stands before '*' to be repeated"),
    ({"type": "string", "pattern": "^a**$"}, "nothing stands before '*' to be repeated"),
    ({"type": "string", "pattern": "^[a$"}, "'[' at character 2 has no counterpart"),
    ({"type": "string", "pattern": "^(a{200}){200}$"}, "repeats more than 10,000 characters"),
    ({"type": "string", "pattern": "^a{99999999999}$"}, "repeats too often"),
    ({"enum": list(range(100_001))}, "schema: the schema is too large"),
]


@pytest.mark.parametrize(("schema", "message"), UNSOUND)
def test_what_nothing_can_be_held_to_is_refused(schema: Any, message: str) -> None:
    """At any depth, of a tool's parameters too: llama.cpp fails late, or drops the whole schema."""
    outer = {"type": "array", "items": schema} if "$ref" not in schema else schema
    for require in (require_enforced, require_sound):
        with pytest.raises(ApiError) as caught:
            require(schema, "schema")
        assert message in caught.value.message
        assert caught.value.code == "unsupported_schema"
        with pytest.raises(ApiError):
            require(outer, "schema")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number", "minimum": 0.5, "multipleOf": 0.5},
        {"type": "string", "pattern": "\\d+", "format": "email"},
        {"type": "object", "required": ["a"]},
        {"allOf": [{"type": "null"}], "not": {}},
    ],
)
def test_a_tool_may_say_more_than_binds(schema: dict[str, Any]) -> None:
    """What describes its parameters to the model need not bind."""
    require_sound(schema, "schema")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": 10_000, "maxLength": 10_000},
        {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
        {"type": "integer", "minimum": 3, "maximum": 3},
        {"type": "string", "pattern": "^([A-Za-z_-]{1,9}|[^a]+|\\.\\?[$^]?.)*$"},
        {"type": ["string", "null"], "enum": ["a", None]},
        {"type": "number", "enum": [1, 1.5]},
        {
            "type": "object",
            "properties": {"next": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}},
            "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}},
        },
    ],
)
def test_bounds_that_can_be_kept_to_are_let_through(schema: dict[str, Any]) -> None:
    """Up to the largest, and references that come back with something in between."""
    require_enforced(schema, "schema")


def test_a_schema_without_end_is_refused() -> None:
    """Nesting is bounded."""
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(100):
        schema = {"type": "array", "items": schema}
    with pytest.raises(ApiError, match="nested too deeply"):
        require_enforced(schema, "schema")


def test_raw_routes_read_a_schema_as_the_chat_does() -> None:
    """At every depth; properties may be called like keywords, and values are not schemas."""
    person = {"type": "object", "properties": {"oneOf": {"type": "null"}}, "required": ["oneOf"]}
    schema = {
        "$schema": "http://example.org/unknown",
        "title": "T",
        "oneOf": [{"$ref": "#/$defs/p"}, {"const": {"title": 1, "oneOf": []}}, {"type": "array", "prefixItems": [person]}],
        "$defs": {"p": person | {"additionalProperties": {"type": "null", "title": "U"}}},
    }  # fmt: skip
    require_enforced(schema, "schema")
    closed = person | {"additionalProperties": False}
    row = {"type": "array", "prefixItems": [closed], "items": False, "minItems": 1, "maxItems": 1}
    assert for_llguidance(schema) == {
        "anyOf": [{"$ref": "#/$defs/p"}, {"const": {"title": 1, "oneOf": []}}, row],
        "$defs": {"p": person | {"additionalProperties": {"type": "null"}}},
    }


KEYWORDS = st.sampled_from(
    ("type", "items", "properties", "required", "anyOf", "enum", "pattern", "$defs", "prefixItems",
     "minItems", "maxLength", "format", "additionalProperties", "$ref", "title")
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
        require_enforced(schema, "schema")
