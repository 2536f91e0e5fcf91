"""JSON Schemas of the stage kinds, generated from their config classes, in two forms.

The *strict* form checks a resolved stage. The *editor* form, published in ``schemas/``, checks a
spec as it is written: any value may also be a ``${…}``, and a profile, a spec that extends another,
or a stage with a matrix need not be complete. It is made for yaml-language-server: ``if`` and
``then`` select the schema by kind, so that an error is about the intended kind.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from llmpipe.contracts import Resources
from llmpipe.registry import KINDS, all_kinds, config_class, stage_class, variant_names
from llmpipe.spec.described import described_schema
from llmpipe.spec.tagged import by_tag
from llmpipe.type_errors import TYPE_WORDS

DRAFT = "http://json-schema.org/draft-07/schema#"
STAGE_ID = "^[a-z][a-z0-9_-]*$"
STAGE_ID_RULE = "a stage id begins with a small letter; then small letters, digits, _ and -"
SHARED = (Resources.__name__,)
"""Classes that several kinds use; the published schemas hold each once."""
EXPRESSION = {"type": "string", "pattern": r"\$\{", "description": "A ${…} expression."}
LITERAL = ("kind", "version", "extends")
"""Fields that are read before expressions are filled in."""
POINTS = {"type": "array", "items": {"type": "object"}}
MATRIX = {
    "type": "object",
    "properties": {
        "exclude": {**POINTS, "description": "Points to leave out."},
        "include": {**POINTS, "description": "Points to add."},
        "max_parallel": {
            "type": "integer",
            "minimum": 1,
            "description": "How many of the points may run at once.",
        },
    },
    "additionalProperties": {"type": "array", "minItems": 1},
}
"""A stage's ``matrix`` as it is written. A resolved stage has none, so no class describes it."""


class Cache(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where artifacts are shared with other machines."""

    remote: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]+://|^/|^\.{1,2}/")] | None = None
    """A folder that several machines reach: s3://…, gs://…, file://… or a path."""


class SpecDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A pipeline of stages that make artifacts."""

    version: Literal[1]
    """The version of the spec language; 1 is the only one so far."""
    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """The pipeline's name. The lock file and reports use it."""
    description: str = ""
    """What the pipeline is for."""
    extends: str | list[str] = ""
    """One or more specs that this one is laid over: paths relative to this file."""
    cache: Cache = Cache()
    """Where artifacts are shared with other machines."""
    params: dict[str, Any] = {}
    """Values that stages use as ${params.NAME}; --set params.NAME=… overrides them."""
    profiles: dict[str, dict[str, Any]] = {}
    """Named changes to params and stages, applied by --profile NAME."""
    stages: Annotated[dict[str, dict[str, Any]], msgspec.Meta(min_length=1)]
    """The stages by id. Their order does not matter: references determine the order of execution.
    """


@cache
def strict_schema(kind: str, variant: str | None = None) -> dict[str, Any]:
    """Return the schema of a resolved stage of this kind, without descriptions.

    Raises:
        KeyError: The kind or the variant does not exist.
    """
    return _of_kind(msgspec.json.schema(config_class(stage_class(kind), variant)), kind)


@cache
def has_old_names(kind: str, variant: str | None = None) -> bool:
    """Return whether fields of this kind were renamed; raises like `strict_schema`."""
    definitions = strict_schema(kind, variant)["$defs"].values()
    fields = (field for found in definitions for field in found.get("properties", {}).values())
    return any("formerly" in field for field in fields)


@cache
def document_schema() -> dict[str, Any]:
    """Return the strict schema of a spec's top level; its stages are checked by their kinds."""
    return msgspec.json.schema(SpecDocument)


def editor_schema(*, installed: bool = False) -> dict[str, Any]:
    """Return the schema of a whole spec for editors.

    Args:
        installed: Whether to include the kinds and variants of installed packages.
    """
    definitions: dict[str, Any] = {}
    kinds = all_kinds() if installed else sorted(KINDS)
    for kind in kinds:
        for form, complete in (("stage", True), ("overlay", False)):
            definitions[f"{form}.{kind}"] = _editor_stage(
                kind, definitions, complete=complete, installed=installed
            )
    properties = _editor_form(described_schema(SpecDocument))["$defs"]["SpecDocument"]
    root = properties["properties"]
    root["cache"] = _editor_form(described_schema(Cache))["$defs"]["Cache"]
    root["profiles"]["additionalProperties"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"params": {"type": "object"}, "stages": _editor_stages("overlay")},
    }
    root["stages"] = {"type": "object", "description": root["stages"]["description"]}
    return {
        "$schema": DRAFT,
        "title": "llmpipe spec",
        **{key: value for key, value in properties.items() if key != "required"},
        # a spec that is laid over another need not be complete
        "if": {"required": ["extends"]},
        "then": {"properties": {"stages": _editor_stages("overlay")}},
        "else": {
            "required": properties["required"],
            "properties": {"stages": {"minProperties": 1, **_editor_stages("stage")}},
        },
        "definitions": {
            **definitions,
            "stage": _any_stage(kinds),
            "overlay": _any_overlay(kinds, definitions),
        },
    }


def _editor_stages(definition: str) -> dict[str, Any]:
    return {
        "type": "object",
        "propertyNames": {"pattern": STAGE_ID, "patternErrorMessage": STAGE_ID_RULE},
        "additionalProperties": {"$ref": f"#/definitions/{definition}"},
    }


def _any_stage(kinds: Sequence[str]) -> dict[str, Any]:
    """Describe a stage by its kind; a matrix may supply missing fields."""
    return {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": _kind_field(kinds)},
        "if": {"required": ["matrix"]},
        "then": {"allOf": [_when("kind", kind, f"overlay.{kind}") for kind in kinds]},
        "else": {"allOf": [_when("kind", kind, f"stage.{kind}") for kind in kinds]},
    }


def _any_overlay(kinds: Sequence[str], definitions: dict[str, Any]) -> dict[str, Any]:
    """Describe an overlay of a stage: by its kind, or by all kinds if it names none."""
    forms = {kind: f"overlay.{kind}" for kind in kinds}
    return _overlay_by("kind", _kind_field(kinds), forms, definitions)


def _overlay_by(
    field: str, choice: dict[str, Any], forms: dict[str, str], definitions: dict[str, Any]
) -> dict[str, Any]:
    """Describe a part of a stage by the form that ``field`` names, or by all forms if it is absent.

    Args:
        field: The field that names the form.
        choice: The schema of that field.
        forms: The name of each form's definition, by the field's value.
        definitions: All definitions so far.
    """
    fields: dict[str, Any] = {}
    for form in forms.values():
        definition = definitions[form]
        for name, schema in definition.get("else", definition)["properties"].items():
            fields[name] = schema if fields.get(name, schema) == schema else {}
    return {
        "type": "object",
        "properties": {field: choice},
        "if": {"required": [field]},
        "then": {"allOf": [_when(field, value, form) for value, form in forms.items()]},
        "else": {"additionalProperties": False, "properties": {**fields, field: choice}},
    }


def _kind_field(kinds: Sequence[str]) -> dict[str, Any]:
    return {"enum": list(kinds), "description": "Which kind of stage this is."}


def editor_stage_schema(kind: str, *, installed: bool = False) -> dict[str, Any]:
    """Return the editor schema of a single stage of this kind; see `editor_schema`."""
    definitions: dict[str, Any] = {}
    schema = _editor_stage(kind, definitions, complete=True, installed=installed)
    return {
        "$schema": DRAFT,
        "title": f"llmpipe {kind} stage",
        **schema,
        "definitions": definitions,
    }


def published_schemas() -> dict[str, str]:
    """Return every file of the ``schemas/`` folder as ``{relative path: text}``."""
    files = {"spec.schema.json": editor_schema()}
    for kind in sorted(KINDS):
        files[f"stages/{kind}.schema.json"] = editor_stage_schema(kind)
    return {name: json.dumps(schema, indent=2) + "\n" for name, schema in files.items()}


def stale_schemas(folder: Path) -> list[str]:
    """List the files in ``folder`` that are missing, out of date or unexpected."""
    expected = published_schemas()
    found = {str(path.relative_to(folder)) for path in folder.rglob("*.json")}
    changed = {
        name
        for name in found & expected.keys()
        if (folder / name).read_bytes() != expected[name].encode()
    }
    return sorted((expected.keys() ^ found) | changed)


def _when(field: str, value: str, definition: str) -> dict[str, Any]:
    return {
        "if": {"required": [field], "properties": {field: {"const": value}}},
        "then": {"$ref": f"#/definitions/{definition}"},
    }


def _editor_stage(
    kind: str, definitions: dict[str, Any], *, complete: bool, installed: bool
) -> dict[str, Any]:
    """Return a stage's editor schema; the schemas it refers to are added to ``definitions``."""
    stage = stage_class(kind)
    if stage.variants is None:
        return _editor_struct(stage.Config, kind, definitions, complete=complete)
    forms = {}
    for name in variant_names(stage) if installed else sorted(stage.variants.classes):
        forms[name] = f"{'stage' if complete else 'overlay'}.{kind}.{name}"
        definitions[forms[name]] = _editor_struct(
            config_class(stage, name),
            kind,
            definitions,
            complete=complete,
            prefix=kind if name in stage.variants.classes else f"{kind}.{name}",
        )
    field = stage.variants.field
    common = described_schema(stage.Config)["$defs"][stage.Config.__name__]
    about = common["properties"][field]["description"]
    choice = _or_expression({"enum": list(forms), "description": about})
    if not complete:
        return _overlay_by(field, choice, forms, definitions)
    return {
        "type": "object",
        "required": [field],
        "properties": {field: choice},
        "allOf": [_when(field, name, form) for name, form in forms.items()],
    }


def _editor_struct(
    cls: type[msgspec.Struct],
    kind: str,
    definitions: dict[str, Any],
    *,
    complete: bool,
    prefix: str = "",
) -> dict[str, Any]:
    """Return the editor schema of a config class; its nested classes are added to ``definitions``.

    Their names begin with ``prefix``, by default the kind.
    """
    schema = _of_kind(described_schema(cls), kind)
    name = schema["$ref"].rpartition("/")[2]
    fields = schema["$defs"][name]["properties"]
    fields["matrix"] = {**fields["matrix"], "anyOf": [MATRIX, {"type": "null"}]}
    schema = _editor_form(schema)
    suffix = "" if complete else ".partial"
    prefix = prefix or kind
    renamed = {old: old if old in SHARED else f"{prefix}.{old}{suffix}" for old in schema["$defs"]}
    for old, definition in schema["$defs"].items():
        body = _relink(definition, renamed)
        if not complete:
            body.pop("required", None)
        if old not in SHARED and definitions.get(renamed[old], body) != body:
            raise ValueError(f"two config classes of {kind} are called {old}")
        definitions[renamed[old]] = body
    root: dict[str, Any] = definitions.pop(renamed[name])
    return root


def _relink(value: Any, renamed: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: f"#/definitions/{renamed[item.rpartition('/')[2]]}"
            if key == "$ref"
            else _relink(item, renamed)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_relink(item, renamed) for item in value]
    return value


def _editor_form(schema: dict[str, Any]) -> dict[str, Any]:
    """Allow a ``${…}`` expression for every field's value, and for everything that it holds."""
    root = schema["$ref"].rpartition("/")[2]
    definitions = {
        name: (_holding_expressions if name == root else _block_or_expression)(definition)
        for name, definition in schema["$defs"].items()
    }
    return {**schema, "$defs": definitions}


def _or_expression(field: dict[str, Any]) -> dict[str, Any]:
    told = ("description", "deprecationMessage", "doNotSuggest")
    outer = {key: field[key] for key in told if key in field}
    default = field.get("default")
    if isinstance(default, (int, float, str)) and default != "":
        outer["default"] = default  # an editor inserts it; None or a block would be in the way
    dropped = (*told, "default", "formerly")
    inner = {key: value for key, value in field.items() if key not in dropped}
    if "discriminator" in inner:
        return {**outer, **by_tag(inner)}
    choices = [_block_or_expression(choice) for choice in inner.get("anyOf", [inner])]
    if not any(_takes_expression(choice) for choice in choices):
        choices.append(EXPRESSION)
    return {**outer, **choices[0]} if len(choices) == 1 else {**outer, "anyOf": choices}


def _block_or_expression(schema: dict[str, Any]) -> dict[str, Any]:
    """Allow an expression for a list or mapping, and for what it holds; keep a scalar as it is.

    One schema with both types, not a choice of two: an editor then begins a new line after the key.
    """
    if schema.get("type") not in ("object", "array"):
        return schema
    what = TYPE_WORDS[schema["type"]]
    return {
        **_holding_expressions(schema),
        "type": [schema["type"], "string"],
        "pattern": EXPRESSION["pattern"],
        "patternErrorMessage": f"must be {what}, or a ${{…}} that stands for one",
    }


def _holding_expressions(schema: dict[str, Any]) -> dict[str, Any]:
    """Allow expressions inside a list or a mapping."""
    below = {key: schema[key] for key in ("items", "additionalProperties") if schema.get(key)}
    deeper = {key: _or_expression(value) for key, value in below.items()}
    if "properties" in schema:
        fields = schema["properties"]
        deeper["properties"] = {
            name: field if name in LITERAL else _or_expression(field)
            for name, field in (fields | _old_names(fields)).items()
        }
    return {**schema, **deeper}


def _old_names(fields: dict[str, Any]) -> dict[str, Any]:
    """Return renamed fields by their old names, which editors mark and do not suggest."""
    return {
        field["formerly"]: {
            **{key: value for key, value in field.items() if key not in ("default", "formerly")},
            "deprecationMessage": f"{field['formerly']!r} is now called {name!r}",
            "doNotSuggest": True,
        }
        for name, field in fields.items()
        if "formerly" in field
    }


def _takes_expression(schema: dict[str, Any]) -> bool:
    """Return whether a choice accepts an expression already: a block, any text, or anything."""
    kind = schema.get("type")
    text = kind == "string" and not {"pattern", "enum"} & schema.keys()
    return not schema or "$ref" in schema or isinstance(kind, list) or text


def _of_kind(schema: Any, kind: str) -> dict[str, Any]:
    """Pin the field ``kind`` of a stage's schema to its one value."""
    field = schema["$defs"][schema["$ref"].rpartition("/")[2]]["properties"]["kind"]
    field.pop("type", None)
    field["const"] = kind
    return dict(schema)
