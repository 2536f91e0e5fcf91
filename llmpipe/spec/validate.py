"""Check a resolved spec against the schemas; report every problem at its place."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from llmpipe.contracts import StageConfig
from llmpipe.errors import Problem, did_you_mean
from llmpipe.registry import (
    all_kinds,
    claimants,
    convert_config,
    stage_class,
    variant_class,
    variant_names,
)
from llmpipe.spec.load import Node
from llmpipe.spec.matrix import Variant, expand
from llmpipe.spec.misplaced_secrets import misplaced_secrets
from llmpipe.spec.model import StageSpec
from llmpipe.spec.old_names import with_new_names
from llmpipe.spec.schema import (
    STAGE_ID,
    STAGE_ID_RULE,
    document_schema,
    has_old_names,
    strict_schema,
)
from llmpipe.spec.schema_errors import schema_problems
from llmpipe.type_errors import (
    Steps,
    dotted,
    steps_in,
)


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
    yield from schema_problems(document_schema(), plain, root, ())
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
            problems = [*schema_problems(schema, data, node, path)]
            problems += misplaced_secrets(data, schema, node, path)
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
