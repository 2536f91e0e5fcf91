"""Tagged unions in schemas: mappings whose form one field selects, such as ``step``."""

from __future__ import annotations

from typing import Any

from llmpipe.errors import Problem, did_you_mean
from llmpipe.spec.load import Node
from llmpipe.type_errors import Steps, dotted


def by_tag(union: dict[str, Any]) -> dict[str, Any]:
    """Return a union as ``if`` and ``then``, so that an editor's error is about the form meant."""
    tag, cases = union["discriminator"]["propertyName"], union["discriminator"]["mapping"]
    return {
        "type": "object",
        "required": [tag],
        "properties": {tag: {"enum": list(cases)}},
        "allOf": [
            {"if": {"required": [tag], "properties": {tag: {"const": name}}}, "then": {"$ref": ref}}
            for name, ref in cases.items()
        ],
    }


def tag_of(schema: dict[str, Any]) -> str | None:
    """Return the field that selects a form of a union, None for any other schema."""
    tag: str | None = schema.get("discriminator", {}).get("propertyName")
    return tag


def tag_problem(error: Any, node: Node, base: Steps) -> Problem | None:
    """Return the problem of a mapping whose tag is missing or unknown, for an error of a union."""
    tag, value = tag_of(error.schema), error.instance
    if error.validator != "anyOf" or not tag or not isinstance(value, dict):
        return None
    known = sorted(error.schema["discriminator"]["mapping"])
    path: Steps = tuple(error.absolute_path)
    listed = f"{tag}s: {', '.join(known)}"
    if tag not in value:
        return Problem(f"{dotted((*base, *path))}: {tag!r} is missing", node.locate(path), listed)
    named = value[tag]
    if named in known:
        return None
    hint = (did_you_mean(named, known) if isinstance(named, str) else None) or listed
    name = dotted((*base, *path, tag))
    return Problem(f"{name}: unknown {tag} {named!r}", node.locate((*path, tag)), hint)


def intended_form(error: Any) -> list[Any]:
    """Return the errors of the form that a mapping's tag selects, for an error of a union."""
    tag = tag_of(error.schema)
    if not tag or not isinstance(error.instance, dict):
        return []
    ref = error.schema["discriminator"]["mapping"].get(error.instance.get(tag))
    place = next((i for i, form in enumerate(error.validator_value) if form["$ref"] == ref), None)
    return [nested for nested in error.context if nested.schema_path[0] == place]
