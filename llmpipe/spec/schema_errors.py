"""Check data against a schema, and word jsonschema's errors for people."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from llmpipe.errors import Problem, did_you_mean
from llmpipe.spec.hints import for_unknown, in_quotes, of_another_variant, other_engine
from llmpipe.spec.load import Node
from llmpipe.spec.old_names import twice_named
from llmpipe.spec.tagged import intended_form, tag_of, tag_problem
from llmpipe.type_errors import (
    TYPE_WORDS,
    Steps,
    bounded,
    dotted,
    mismatch,
    non_empty,
    one_of,
    shown,
)

_BOUNDS = {"minimum": "ge", "exclusiveMinimum": "gt", "maximum": "le", "exclusiveMaximum": "lt"}
_SIZES = ("minLength", "minItems", "minProperties")


def schema_problems(
    schema: dict[str, Any], data: Any, node: Node, base: Steps
) -> Iterator[Problem]:
    """Check ``data``, which is at ``node``; messages call its place ``base``."""
    for error in _validator()(schema).iter_errors(data):
        yield from _explain(error, node, base, schema)


@cache
def _validator() -> Any:
    """Return the class that checks data against a schema; to make it takes milliseconds."""
    from jsonschema import Draft202012Validator, validators

    checks = {"pattern": _check_pattern}
    return validators.extend(Draft202012Validator, checks)  # type: ignore[no-untyped-call]


def _check_pattern(
    validator: Any, pattern: str, value: Any, schema: dict[str, Any]
) -> Iterator[Any]:
    """Match as JSON Schema does: ``$`` is the very end, and not before a last line feed as well."""
    from jsonschema import ValidationError

    if isinstance(value, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _explain(error: Any, node: Node, base: Steps, root: dict[str, Any]) -> Iterator[Problem]:
    """Turn an error of jsonschema into readable problems; ``root`` is the whole schema."""
    path: Steps = tuple(error.absolute_path)
    name = dotted((*base, *path))
    prefix = f"{name}: " if name else ""
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        for key in [k for k in error.instance if k not in known]:
            hint = (
                twice_named(key, error.schema)
                or (None if path else of_another_variant(error.instance, key))
                or for_unknown(key, error.instance[key], root, known, top=not path)
            )
            where = node.locate((*path, key), key=True)
            yield Problem(f"{prefix}unknown key {key!r}", where, hint)
    elif error.validator == "required":
        missing = error.message.split("'")[1]
        yield Problem(f"{prefix}{missing!r} is missing", node.locate(path, key=True))
    elif problem := tag_problem(error, node, base):
        yield problem
    elif intended := _intended_choice(error):
        for nested in intended:
            yield from _explain(nested, node, base, root)
    else:
        where = node.locate(path)
        advice = in_quotes(error, where) or other_engine(error) or _meant(error)
        yield Problem(f"{prefix}{_complaint(error)}", where, advice)


def _intended_choice(error: Any) -> list[Any]:
    """Return the errors of the intended choice, for a value that fits none of several choices.

    That is the only choice with the value's type; nothing if there are none or several.
    """
    if error.validator not in ("anyOf", "oneOf"):
        return []
    if tag_of(error.schema):
        return intended_form(error)
    of_type = {e.schema_path[0] for e in error.context} - {
        e.schema_path[0] for e in error.context if e.validator == "type" and not e.relative_path
    }
    return [e for e in error.context if of_type == {e.schema_path[0]}]


def _complaint(error: Any) -> str:
    """Word one of jsonschema's errors about a single value."""
    if error.validator == "pattern":
        return f"must match {error.validator_value}, not {shown(error.instance)}"
    if error.validator in ("type", "anyOf", "oneOf", "enum", "const", *_BOUNDS, *_SIZES):
        return mismatch(_expected(error.schema), error.instance)
    return str(error.message)


def _expected(schema: dict[str, Any]) -> list[str]:
    """Return in words what a schema allows; null only where it allows nothing else."""
    if "enum" in schema or "const" in schema:
        return [one_of(schema.get("enum") or [schema["const"]])]
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        words = [word for choice in choices for word in _expected(choice)]
    else:
        types = schema.get("type", "object")
        words = [_words(each, schema) for each in ([types] if isinstance(types, str) else types)]
    return [word for word in words if word != TYPE_WORDS["null"]] or words


def _words(kind: str, schema: dict[str, Any]) -> str:
    """Return the words for one type of a schema, with its bounds."""
    if kind in ("integer", "number"):
        bounds = {name: schema[key] for key, name in _BOUNDS.items() if key in schema}
        return bounded(TYPE_WORDS[kind], **bounds)
    empty = any(schema.get(key) == 1 for key in _SIZES)
    return non_empty(TYPE_WORDS[kind]) if empty else TYPE_WORDS[kind]


def _meant(error: Any) -> str | None:
    """Return the allowed word that a value is close to, as a hint."""
    if error.validator not in ("enum", "const") or not isinstance(error.instance, str):
        return None
    allowed = error.validator_value if error.validator == "enum" else [error.validator_value]
    return did_you_mean(error.instance, (each for each in allowed if isinstance(each, str)))
