"""Whether a value, or the JSON in a text, matches a JSON Schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from llmpipe.errors import is_text


def schema_problem(schema: Mapping[str, Any]) -> str:
    """Return what is wrong with a JSON Schema, or an empty text.

    It may refer to its own parts, and not to other documents.
    """
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"is not a JSON Schema: {error.message}"
    broken = next((ref for ref in _references(schema) if not _is_inside(schema, ref)), None)
    return "" if broken is None else f"refers to {broken!r}, which is no part of it"


def _references(schema: Any) -> Iterator[str]:
    """Yield what a schema refers to."""
    if isinstance(schema, Mapping):
        for name, value in schema.items():
            if name in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield value
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _is_inside(schema: Any, reference: str) -> bool:
    """Return whether a reference leads to a part of the schema, by its path or a name."""
    if not reference.startswith("#"):
        return False
    if not reference.startswith("#/"):
        return True  # the whole schema, or an anchor
    for step in unquote(reference[2:]).split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list) and name.isdecimal() and int(name) < len(schema):
            schema = schema[int(name)]
        elif isinstance(schema, Mapping) and name in schema:
            schema = schema[name]
        else:
            return False
    return True


def mismatch(schema: Mapping[str, Any], value: Any) -> str:
    """Return why a value does not match a JSON Schema, or an empty text."""
    from jsonschema import Draft202012Validator

    error = next(iter(Draft202012Validator(schema).iter_errors(value)), None)
    if error is None:
        return ""
    place = "/".join(map(str, error.absolute_path))
    return f"{place}: {error.message}" if place else error.message


def json_value(text: str) -> Any:
    """Return the JSON value in a text, without a code fence around it.

    Raises:
        ValueError: There is none, or no file of rows can hold it: half of a surrogate pair, or a
            number such as NaN.
    """
    bare = re.sub(r"\A\s*```(?:json)?|```\s*\Z", "", text)
    try:
        value = json.loads(bare)
        written = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not is_text(written):
        raise ValueError("it has half of a surrogate pair")
    return value
