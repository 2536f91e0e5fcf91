"""Explain what is wrong with the fields of a request: the expected type, and what was meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from llmpipe.errors import did_you_mean
from llmpipe.type_errors import (
    TYPE_WORDS,
    Steps,
    bounded,
    dotted,
    mismatch,
    non_empty,
    one_of,
    requirement,
    shown,
    steps_in,
)

_WORDS: dict[type[inspect.Type], str] = {
    inspect.BoolType: TYPE_WORDS["boolean"],
    inspect.IntType: TYPE_WORDS["integer"],
    inspect.FloatType: TYPE_WORDS["number"],
    inspect.StrType: TYPE_WORDS["string"],
    inspect.ListType: TYPE_WORDS["array"],
    inspect.DictType: "an object",
    inspect.StructType: "an object",
}
"""The words for each of msgspec's types; JSON's word for a mapping is object."""


def complaint(error: msgspec.ValidationError, data: Any, kind: type[Any]) -> tuple[str, str]:
    """Return why data does not have a type: a message, and the same without the caller's text.

    Only the place in msgspec's error is used, as far as it exists in the data.
    """
    steps, needed, value = _walked(steps_in(str(error)), inspect.type_info(kind), data)
    place = f"{dotted(steps)}: " if steps else ""
    struct = _struct(needed)
    if struct is not None and isinstance(value, dict):
        told, logged = _misfit(struct, value)
        return place + told, place + logged
    expected = list(_choices(needed))
    told = f"{place}{mismatch(expected, value)}{_meant(needed, value)}"
    return told, place + requirement(expected)


def _misfit(needed: inspect.StructType, value: dict[str, Any]) -> tuple[str, str]:
    """Return which field an object must not have or lacks; again without the caller's text."""
    if unknown := _unknown(needed, value):
        known = [field.encode_name for field in needed.fields]
        hint = did_you_mean(unknown[0], known) or f"known: {', '.join(known)}"
        return f"unknown field {shown(unknown[0])}; {hint}", "unknown field"
    required = (field.encode_name for field in needed.fields if field.required)
    told = f"{next(name for name in required if name not in value)!r} is missing"
    return told, told


def _unknown(needed: inspect.Type, value: Any) -> list[str]:
    """Return the fields that an object may not have."""
    struct = _struct(needed)
    if struct is None or not isinstance(value, dict):
        return []
    if not struct.cls.__struct_config__.forbid_unknown_fields:
        return []
    known = {field.encode_name for field in struct.fields}
    return [name for name in value if name not in known]


def _struct(needed: inspect.Type) -> inspect.StructType | None:
    """Return the expected type of object, if it is one."""
    found = [each for each in _members(needed) if isinstance(each, inspect.StructType)]
    return found[0] if found else None


def _walked(steps: Steps, needed: inspect.Type, value: Any) -> tuple[Steps, inspect.Type, Any]:
    """Walk to a place in a value; return the steps, the type, and the value there.

    The walk ends at an object with an unknown field, because msgspec's message quotes the name of
    the field, which may look like a place.
    """
    for taken, step in enumerate(steps):
        below = None if _unknown(needed, value) else _below(needed, value, step)
        if below is None:
            return steps[:taken], needed, value
        needed, value = below
    return steps, needed, value


def _below(needed: inspect.Type, value: Any, step: str | int) -> tuple[inspect.Type, Any] | None:
    """Return the value at a step into a value of a type, or None if there is none."""
    for each in _members(needed):
        match each, value:
            case inspect.ListType(), list() if isinstance(step, int) and step < len(value):
                return each.item_type, value[step]
            case inspect.StructType(), dict() if step in value:
                for field in each.fields:
                    if field.encode_name == step:
                        return field.type, value[step]
    return None


def _members(needed: inspect.Type) -> tuple[inspect.Type, ...]:
    members = needed.types if isinstance(needed, inspect.UnionType) else (needed,)
    return tuple(each for each in members if not isinstance(each, inspect.NoneType))


def _choices(needed: inspect.Type) -> Iterator[str]:
    """Yield in words what a value may be; null only where it may be nothing else."""
    if not _members(needed):
        yield TYPE_WORDS["null"]
    for each in _members(needed):
        if isinstance(each, inspect.LiteralType):
            yield one_of(each.values)
            continue
        words = _WORDS[type(each)]
        if isinstance(each, inspect.IntType | inspect.FloatType):
            words = bounded(words, ge=each.ge, gt=each.gt, le=each.le, lt=each.lt)
        elif isinstance(each, inspect.StrType | inspect.ListType) and each.min_length:
            words = non_empty(words)
        yield words


def _meant(needed: inspect.Type, value: Any) -> str:
    names = [name for each in _members(needed) if isinstance(each, inspect.LiteralType)
             for name in each.values]  # fmt: skip
    hint = did_you_mean(value, map(str, names)) if isinstance(value, str) else None
    return f"; {hint}" if hint else ""
