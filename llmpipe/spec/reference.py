"""The reference page of the stage kinds, generated from the same classes as the schemas.

Each kind has its module docstring, a sentence on what "the same spec gives the same artifacts"
means for it, and tables of its fields and of the classes that they hold.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from llmpipe.contracts import Resources, StageConfig
from llmpipe.registry import KINDS, stage_class, variant_class
from llmpipe.spec.described import described_schema, prose
from llmpipe.spec.schema import SHARED
from llmpipe.type_errors import TYPE_WORDS

HEAD = """\
# The stage kinds

This page is made from the code by `llmpipe schema --docs FILE`; change it there. What references,
`${…}` and model sources look like: [the spec language](spec.md).
"""

SAME = {
    "exact": "The same spec gives the same bytes anywhere.",
    "same-machine": "The same spec gives the same bytes on one kind of machine.",
    "external": "The same spec gives the same bytes where what it calls from outside does.",
}
"""A sentence for each `llmpipe.contracts.Determinism`."""


def reference_page() -> str:
    """Return the page as Markdown: the common fields, then llmpipe's own kinds."""
    common = described_schema(StageConfig)["$defs"]
    shared = set(common["StageConfig"]["properties"])
    parts = [
        HEAD,
        "## Every stage\n\nNone of these fields enters the cache key.\n",
        _table(common["StageConfig"], ""),
        f"### Resources\n\n{common[Resources.__name__]['description']}\n",
        _table(common[Resources.__name__], ""),
    ]
    for kind in sorted(KINDS):
        parts += _kind(kind, shared)
    return "\n".join(parts)


def _kind(kind: str, shared: set[str]) -> Iterator[str]:
    cls = stage_class(kind)
    story = prose(sys.modules[cls.__module__].__doc__ or "")
    yield f"## {kind}\n\n{story}\n\n{SAME[cls.determinism]}\n"
    classes: set[str] = set()
    if cls.variants is None:
        yield from _struct(cls.Config, kind, shared, classes)
        return
    variants = sorted(cls.variants.classes)
    yield from _struct(cls.Config, kind, shared, classes, {cls.variants.field: variants})
    common = shared | set(cls.Config.__struct_fields__)
    for name in variants:
        variant = variant_class(cls, name)
        yield f"### {kind}: {name}\n\n{prose(sys.modules[variant.__module__].__doc__ or '')}\n"
        yield from _struct(variant.Config, kind, common, classes)


def _struct(
    cls: type[msgspec.Struct],
    kind: str,
    told: Collection[str],
    classes: set[str],
    choices: Mapping[str, list[str]] = MappingProxyType({}),
) -> Iterator[str]:
    """Yield the tables of a config class and of the classes that its fields hold.

    Args:
        cls: The config class.
        kind: The stage kind that it belongs to.
        told: Fields that are described elsewhere on the page.
        classes: The classes that have a table already; those of this one are added.
        choices: The values of a field whose type does not name them.
    """
    schema = described_schema(cls)
    definitions = schema["$defs"]
    own = definitions.pop(schema["$ref"].rpartition("/")[2])
    fields = {k: v for k, v in own["properties"].items() if k not in told}
    declared = [name for name in fields if name in cls.__annotations__]
    fields = {name: fields[name] for name in dict.fromkeys([*declared, *fields])}
    for name, values in choices.items():
        fields[name] = {**fields[name], "enum": values}
    yield f"{own['description']}\n"
    yield _table({**own, "properties": fields}, kind)
    for name, definition in definitions.items():
        if name not in SHARED and name not in classes:
            classes.add(name)
            about = definition.get("description", "")
            yield f"### {kind}: {name}\n" + (f"\n{about}\n" if about else "")
            yield _table(definition, kind)


def _table(definition: Mapping[str, Any], kind: str) -> str:
    """Return the table of a class's fields; links lead to the tables of ``kind``."""
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    required = definition.get("required", [])
    for name, field in definition["properties"].items():
        default = "**needed**" if name in required else _default(field.get("default"))
        cells = (f"`{name}`", _type(field, kind), default, " ".join(field["description"].split()))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _default(value: Any) -> str:
    """Return the default of a field; a nested class has its defaults in its own table."""
    if value is None or isinstance(value, dict) or value in ("", [], ()):
        return ""
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _type(field: Mapping[str, Any], kind: str) -> str:
    """Describe the type of a field."""
    choices = field.get("anyOf", [field])
    told = " or ".join(_choice(c, kind) for c in choices if c.get("type") != "null")
    return f"{told}; `${{secret:NAME}}` too" if field.get("writeOnly") else told


def _choice(schema: Mapping[str, Any], kind: str) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name in SHARED:
            return f"[{name}](#{name.lower()})"
        return f"[{name}](#{kind}-{name.lower()})"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    word = TYPE_WORDS[schema["type"]].removeprefix("a ") if "type" in schema else "any value"
    if schema.get("items"):
        return f"{word} of: {_type(schema['items'], kind)}"
    if schema.get("additionalProperties"):
        return f"{word} of names to: {_type(schema['additionalProperties'], kind)}"
    return word + _limits(schema)


def _limits(schema: Mapping[str, Any]) -> str:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    limits = []
    if low is not None:
        limits.append(f"{'from' if 'minimum' in schema else 'above'} {low:g}")
    if high is not None:
        limits.append(f"{'to' if 'maximum' in schema else 'below'} {high:g}")
    return "".join(f" {limit}" for limit in limits)
