"""JSON Schemas made from the stage kinds' config classes, in two forms.

The *strict* form checks a resolved stage. The *editor* form, published in ``schemas/``, checks a
spec as people write it: any scalar may also be a ``${…}`` and profiles need not be complete.
"""

from __future__ import annotations

import ast
import copy
import inspect
import json
import textwrap
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from llmpipe.contracts import Resources
from llmpipe.registry import KINDS, stage_class

DRAFT = "http://json-schema.org/draft-07/schema#"
STAGE_ID = "^[a-z][a-z0-9_-]*$"
SHARED = (Resources.__name__,)
"""Classes that several kinds use; the published schemas hold each once."""
EXPRESSION = {"type": "string", "pattern": r"\$\{", "description": "A ${…} expression."}


class Cache(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where artifacts are shared with other machines."""

    remote: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]+://|^/|^\.{1,2}/")] | None = None
    """A folder that several machines reach: s3://…, gs://…, file://… or a path."""


class SpecDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A pipeline: what to make, from what, in which stages."""

    version: Literal[1]
    """The version of the spec language; 1 is the only one so far."""
    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """The pipeline's name: it names the lock file and stands in reports."""
    description: str = ""
    """What the pipeline is for."""
    extends: str | list[str] = ""
    """A spec, or several, that this one is laid over: paths, relative to this file."""
    cache: Cache = Cache()
    """Where artifacts are shared with other machines."""
    params: dict[str, Any] = {}
    """Values that the stages use as ${params.NAME}; --set params.NAME=… changes them."""
    profiles: dict[str, dict[str, Any]] = {}
    """Named changes to params and stages, laid over the spec by --profile NAME."""
    stages: Annotated[dict[str, dict[str, Any]], msgspec.Meta(min_length=1)]
    """The stages by id. Their order does not matter: references decide what runs first."""


@cache
def strict_schema(kind: str) -> dict[str, Any]:
    """Give the schema of a resolved stage of this kind, without descriptions.

    Raises:
        KeyError: there is no such kind.
    """
    return _of_kind(msgspec.json.schema(stage_class(kind).Config), kind)


@cache
def document_schema() -> dict[str, Any]:
    """Give the strict schema of a spec's top level; its stages are checked by their kinds."""
    return msgspec.json.schema(SpecDocument)


def editor_schema() -> dict[str, Any]:
    """Give the schema of a whole spec for editors, all of our own kinds told apart by ``kind``."""
    kinds = sorted(KINDS)
    definitions: dict[str, Any] = {}
    for kind in kinds:
        definitions[f"stage.{kind}"] = _editor_stage(kind, definitions, complete=True)
        definitions[f"overlay.{kind}"] = _editor_stage(kind, definitions, complete=False)
    stage = {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": kinds, "description": "Which kind of stage this is."}},
        "allOf": [_when_kind(kind, f"stage.{kind}") for kind in kinds],
    }
    overlay = {
        "type": "object",
        "allOf": [_when_kind(kind, f"overlay.{kind}") for kind in kinds],
    }
    root = _editor_form(_described_schema(SpecDocument))["$defs"]["SpecDocument"]
    properties = root["properties"]
    cache = _editor_form(_described_schema(Cache))["$defs"]["Cache"]
    properties["cache"] = {**cache, "description": properties["cache"]["description"]}
    description = properties["stages"]["description"]
    properties["stages"] = {"type": "object", "description": description}
    properties["profiles"]["additionalProperties"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"params": {"type": "object"}, "stages": _editor_stages("overlay")},
    }
    required = root.pop("required")
    return {
        "$schema": DRAFT,
        "title": "llmpipe spec",
        **{key: value for key, value in root.items() if key != "title"},
        "required": ["version"],
        # what is laid over another spec need not be whole
        "if": {"required": ["extends"]},
        "then": {"properties": {"stages": _editor_stages("overlay")}},
        "else": {
            "required": required,
            "properties": {"stages": {"minProperties": 1, **_editor_stages("stage")}},
        },
        "definitions": {**definitions, "stage": stage, "overlay": overlay},
    }


def _editor_stages(definition: str) -> dict[str, Any]:
    return {
        "type": "object",
        "propertyNames": {"pattern": STAGE_ID},
        "additionalProperties": {"$ref": f"#/definitions/{definition}"},
    }


def editor_stage_schema(kind: str) -> dict[str, Any]:
    """Give the editor schema of a single stage of this kind."""
    definitions: dict[str, Any] = {}
    schema = _editor_stage(kind, definitions, complete=True)
    return {
        "$schema": DRAFT,
        "title": f"llmpipe {kind} stage",
        **schema,
        "definitions": definitions,
    }


def published_schemas() -> dict[str, str]:
    """Give every file of the ``schemas/`` folder as ``{relative path: text}``."""
    files = {"spec.schema.json": editor_schema()}
    for kind in sorted(KINDS):
        files[f"stages/{kind}.schema.json"] = editor_stage_schema(kind)
    return {name: json.dumps(schema, indent=2) + "\n" for name, schema in files.items()}


def stale_schemas(folder: Path) -> list[str]:
    """Name the files in ``folder`` that are missing, out of date or not of our making."""
    expected = published_schemas()
    found = {str(path.relative_to(folder)) for path in folder.rglob("*.json")}
    changed = {
        name
        for name in found & expected.keys()
        if (folder / name).read_text("utf-8") != expected[name]
    }
    return sorted((expected.keys() ^ found) | changed)


def _when_kind(kind: str, definition: str) -> dict[str, Any]:
    return {
        "if": {"required": ["kind"], "properties": {"kind": {"const": kind}}},
        "then": {"$ref": f"#/definitions/{definition}"},
    }


def _editor_stage(kind: str, definitions: dict[str, Any], *, complete: bool) -> dict[str, Any]:
    """Give a stage's editor schema; its nested classes are added to ``definitions``."""
    schema = _editor_form(_of_kind(_described_schema(stage_class(kind).Config), kind))
    name = schema["$ref"].rpartition("/")[2]
    suffix = "" if complete else ".partial"
    renamed = {old: old if old in SHARED else f"{kind}.{old}{suffix}" for old in schema["$defs"]}
    for old, definition in schema["$defs"].items():
        body = _relink(definition, renamed)
        if not complete:
            body.pop("required", None)
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
    """Let every scalar property that is no free text also be a ``${…}`` expression."""
    schema = copy.deepcopy(schema)
    for definition in schema["$defs"].values():
        for name, prop in definition.get("properties", {}).items():
            if name not in ("kind", "version"):
                definition["properties"][name] = _or_expression(prop)
    return schema


def _or_expression(prop: dict[str, Any]) -> dict[str, Any]:
    if "type" not in prop and "anyOf" not in prop and "enum" not in prop:
        return prop  # anything goes, or another class
    if prop.get("type") == "object":
        return prop
    kept = ("description", "default")
    outer: dict[str, Any] = {key: prop[key] for key in kept if key in prop}
    inner = {key: value for key, value in prop.items() if key not in kept}
    choices = inner["anyOf"] if list(inner) == ["anyOf"] else [inner]
    if {"type": "string"} in choices:
        return prop  # free text may hold an expression anyway
    return {**outer, "anyOf": [*choices, EXPRESSION]}


def _of_kind(schema: Any, kind: str) -> dict[str, Any]:
    """Pin the field ``kind`` of a stage's schema to its one value."""
    field = schema["$defs"][schema["$ref"].rpartition("/")[2]]["properties"]["kind"]
    field.pop("type", None)
    field["const"] = kind
    return dict(schema)


def _described_schema(cls: type[msgspec.Struct]) -> dict[str, Any]:
    """Give msgspec's schema of a class, with the attribute docstrings as descriptions."""
    schema = msgspec.json.schema(cls)
    for struct in _structs(cls):
        definition = schema["$defs"].get(struct.__name__)
        if definition is None:
            continue
        definition.pop("title", None)
        for name, text in _field_docs(struct).items():
            if name in definition["properties"]:
                definition["properties"][name].setdefault("description", text)
    return schema


def _structs(cls: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """List a config class and every struct class that its fields hold."""
    found: list[type[msgspec.Struct]] = []

    def visit(info: Any) -> None:
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in found:
                return
            found.append(info.cls)
        for name in getattr(info, "__struct_fields__", ()):
            value = getattr(info, name)
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, (msgspec.inspect.Type, msgspec.inspect.Field)):
                    visit(item)

    visit(msgspec.inspect.type_info(cls))
    return found


def _field_docs(cls: type) -> dict[str, str]:
    """Read the docstrings that stand below the fields of a class and of its bases."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not (issubclass(base, msgspec.Struct) and base is not msgspec.Struct):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for statement, following in zip(tree.body, tree.body[1:], strict=False):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(following, ast.Expr)
                and isinstance(following.value, ast.Constant)
                and isinstance(following.value.value, str)
            ):
                docs[statement.target.id] = inspect.cleandoc(following.value.value)
    return docs
