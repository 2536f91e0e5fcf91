"""Check a resolved spec against the schemas; report every problem at its place."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from llmpipe.contracts import SECRET, StageConfig
from llmpipe.errors import Location, Problem, did_you_mean
from llmpipe.registry import (
    all_kinds,
    claimants,
    convert_config,
    stage_class,
    variant_class,
    variant_names,
)
from llmpipe.spec.hints import for_unknown, in_quotes, of_another_variant, other_engine
from llmpipe.spec.load import Node
from llmpipe.spec.matrix import Variant, expand
from llmpipe.spec.model import StageSpec
from llmpipe.spec.old_names import twice_named, with_new_names
from llmpipe.spec.schema import (
    STAGE_ID,
    STAGE_ID_RULE,
    document_schema,
    has_old_names,
    strict_schema,
)
from llmpipe.type_errors import (
    TYPE_WORDS,
    Steps,
    bounded,
    dotted,
    mismatch,
    non_empty,
    one_of,
    shown,
    steps_in,
)

_NAMED_LIKE_ONE = re.compile(
    r"""(?xi) (?: (?:API|ACCESS|SECRET) [_-]?KEY | SECRET | PASSW(?:OR)?D | (?<![a-z])(?:PASS|PAT)
    | (?:HF|HUB|HUGGING_?FACE|AUTH|ACCESS|SESSION|API|GITHUB|GITLAB|WANDB|BEARER) [_-]?TOKEN )$"""
)
"""The ends of names of variables that hold secrets."""
_SHORTEST = 8
"""Shorter values are placeholders, such as ``none``, not secrets."""

_BOUNDS = {"minimum": "ge", "exclusiveMinimum": "gt", "maximum": "le", "exclusiveMaximum": "lt"}
_SIZES = ("minLength", "minItems", "minProperties")


def validate(root: Node, memo: Path | None = None) -> tuple[dict[str, StageSpec], list[Problem]]:
    """Check a resolved spec; return its typed stages, or the list of all problems.

    A stage with a ``matrix`` is returned once for each point. ``memo`` is a folder that remembers
    valid documents, so that jsonschema, which is slow to import, is not needed again for the same
    spec.
    """
    plain = {k: v for k, v in root.plain().items() if k not in ("profiles", "extends")}
    variants, problems = _variants(root)
    ticket = None if problems else _memo_ticket(plain, variants, memo)
    if ticket is None or not ticket.exists():
        problems += [*_check_document(root, plain), *_check_stages(variants)]
        if problems:
            return {}, list(dict.fromkeys(problems))
        if ticket is not None:
            _remember(ticket)
    return _convert(variants)


def _variants(root: Node) -> tuple[list[Variant], list[Problem]]:
    """Return every stage at every point of its matrix; what is not a mapping is left out."""
    stages = root.find(("stages",)) or Node(None, root.location)
    variants: list[Variant] = []
    problems: list[Problem] = []
    for stage_id, node in stages.children().items():
        if isinstance(node.value, dict):
            where = stages.keys[stage_id]
            expanded, wrong = expand(stage_id, Node(node.value, where, node.keys, node.size))
            variants += map(_with_new_names, expanded)
            problems += wrong
    return variants, problems


def _with_new_names(variant: Variant) -> Variant:
    form = _form(variant.node)
    if form is None or not has_old_names(*form):
        return variant
    name = f"stages.{variant.family}"
    node, notes = with_new_names(variant.node, strict_schema(*form), name)
    return replace(variant, node=node, notes=tuple(notes))


def _convert(variants: list[Variant]) -> tuple[dict[str, StageSpec], list[Problem]]:
    """Convert valid stages to their config classes, and apply the rules between fields."""
    specs: dict[str, StageSpec] = {}
    problems: list[Problem] = []
    for variant in variants:
        data, node = variant.node.plain(), variant.node
        stage = stage_class(data["kind"])
        try:
            config: StageConfig = convert_config(stage, data)
        except msgspec.ValidationError as error:
            message, _, _ = str(error).partition(" - at `$")
            where = node.locate(steps_in(str(error)))
            problems.append(Problem(f"stages.{variant.family}: {message}", where))
            continue
        specs[variant.id] = StageSpec(
            variant.id, data["kind"], stage, config, node,
            variant.family, variant.point, variant.max_parallel, variant.notes,
        )  # fmt: skip
        for field, message in stage.problems(config):
            name = dotted(("stages", variant.family, *field))
            problems.append(Problem(f"{name}: {message}", node.locate(field)))
    return specs, list(dict.fromkeys(problems))


def _check_document(root: Node, plain: dict[str, Any]) -> Iterator[Problem]:
    yield from _schema_problems(document_schema(), plain, root, ())
    stages = root.find(("stages",))
    for stage_id, where in (stages.keys if stages else {}).items():
        if not re.fullmatch(STAGE_ID, stage_id):
            yield Problem(
                f"stages.{stage_id}: not a stage id",
                where,
                STAGE_ID_RULE,
            )
        elif stage_id == "base":
            yield Problem(
                "stages.base: 'base' is reserved: it names the model that others were trained on",
                where,
            )


def _check_stages(variants: list[Variant]) -> Iterator[Problem]:
    for variant in variants:
        data, node = variant.node.plain(), variant.node
        path: Steps = ("stages", variant.family)
        kind = data.get("kind")
        if kind is None:
            yield Problem(f"{dotted(path)}: 'kind' is missing", node.location, _kinds_hint())
        elif not _known(kind):
            hint = did_you_mean(kind, all_kinds()) or _kinds_hint()
            where = node.locate(("kind",))
            yield Problem(f"{dotted(path)}: unknown kind {kind!r}", where, hint)
        elif problem := _variant_problem(kind, node, path):
            yield problem
        elif form := _form(node):
            schema = strict_schema(*form)
            problems = [*_schema_problems(schema, data, node, path)]
            problems += _misplaced_secrets(data, schema, node, path)
            yield from problems
            if problems and (packages := claimants(kind)):
                message = f"{dotted((*path, 'kind'))}: {kind!r} is a kind of llmpipe's own"
                hint = f"that of {packages} is not used: its authors must rename it"
                yield Problem(message, node.locate(("kind",)), hint)


def _variant_problem(kind: str, node: Node, path: Steps) -> Problem | None:
    """Return a problem of the field that selects a stage's variant, such as ``method``."""
    stage = stage_class(kind)
    if stage.variants is None or _form(node):
        return None
    field, known = stage.variants.field, variant_names(stage)
    named = node.find((field,))
    listed = f"{field}s: {', '.join(known)}"
    if named is None:
        return Problem(f"{dotted(path)}: {field!r} is missing", node.location, listed)
    value = named.plain()
    hint = (did_you_mean(value, known) if isinstance(value, str) else None) or listed
    message = f"{dotted((*path, field))}: unknown {field} {value!r}"
    return Problem(message, named.location, hint)


def _form(node: Node) -> tuple[str, str | None] | None:
    """Return a stage's kind and its variant, if the kind has any; None if they are unknown."""
    kind = _text_at(node, "kind")
    if not _known(kind):
        return None
    stage = stage_class(kind)
    if stage.variants is None:
        return kind, None
    name = _text_at(node, stage.variants.field)
    try:
        variant_class(stage, name)
    except KeyError:
        return None
    return kind, name


def _text_at(node: Node, field: str) -> str:
    found = node.find((field,))
    return found.value if found and isinstance(found.value, str) else ""


def _schema_problems(
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


def _misplaced_secrets(
    data: Any, schema: dict[str, Any], root: Node, base: Steps
) -> Iterator[Problem]:
    """Refuse ``${secret:…}`` outside the fields that the schema marks ``writeOnly``.

    A field for a secret refuses a value in clear text, and so does an environment variable with the
    name of a secret; short placeholders are allowed. The line is not shown, because messages end up
    in logs.
    """

    def walk(value: Any, node: dict[str, Any], path: Steps, allowed: bool) -> Iterator[Problem]:
        node = _resolve(node, schema)
        allowed = allowed or bool(node.get("writeOnly"))
        if isinstance(value, str) and SECRET.search(value) and not allowed:
            name = dotted((*base, *path))
            yield Problem(
                f"{name}: a secret is not allowed here: it would be stored and hashed",
                root.locate(path),
                "secrets are allowed in api_key fields and in a command's env",
            )
        elif isinstance(value, str) and _is_for_a_secret(node, path):
            if len(value) >= _SHORTEST and not SECRET.search(value):
                yield Problem(
                    f"{dotted((*base, *path))}: a secret in clear text: every run's records would "
                    "show it",
                    _without_value(root.locate(path)),
                    "write ${secret:NAME}, and export NAME=… before llmpipe is called",
                )
        elif isinstance(value, dict):
            for key, item in value.items():
                below = node.get("properties", {}).get(key) or node.get("additionalProperties")
                below = below if isinstance(below, dict) else {}
                yield from walk(item, below, (*path, key), allowed)
        elif isinstance(value, list):
            items = node.get("items")
            for i, item in enumerate(value):
                below = items if isinstance(items, dict) else {}
                yield from walk(item, below, (*path, i), allowed)

    yield from walk(data, schema, (), allowed=False)


def _without_value(place: Location) -> Location:
    """Return a place without its line, and without the value of a command line option."""
    option, equals, _ = place.file.partition("=")
    return place._replace(text="", file=option if equals and option[:2] == "--" else place.file)


def _is_for_a_secret(node: dict[str, Any], path: Steps) -> bool:
    named = len(path) > 1 and path[-2] == "env" and _NAMED_LIKE_ONE.search(str(path[-1]))
    return node.get("format") == "password" or bool(named)


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Follow ``$ref`` and unwrap ``X | None``."""
    for choice in node.get("anyOf", []):
        if "$ref" in choice or choice.get("writeOnly"):
            return _resolve(
                {**choice, **{key: node[key] for key in ("writeOnly", "format") if key in node}},
                schema,
            )
    if "$ref" in node:
        return {**node, **schema["$defs"][node["$ref"].rpartition("/")[2]]}
    return node


def _known(kind: Any) -> bool:
    if not isinstance(kind, str):
        return False
    try:
        stage_class(kind)
    except KeyError:
        return False
    return True


def _memo_ticket(plain: dict[str, Any], variants: list[Variant], memo: Path | None) -> Path | None:
    if memo is None:
        return None
    forms = {form for variant in variants if (form := _form(variant.node))}
    schemas = [document_schema(), *(strict_schema(*form) for form in sorted(forms, key=str))]
    text = msgspec.json.encode([plain, schemas], order="deterministic")
    return memo / hashlib.sha256(text).hexdigest()


def _remember(ticket: Path) -> None:
    try:
        ticket.parent.mkdir(parents=True, exist_ok=True)
        ticket.touch()
    except OSError:
        pass  # only a cache: without it the next run checks again


def _kinds_hint() -> str:
    return f"kinds: {', '.join(all_kinds())}"
