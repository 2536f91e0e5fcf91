"""Lay profiles and ``--set`` values over a spec; every value keeps its place."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmpipe.errors import Problem, SpecError, UsageError, did_you_mean, is_text
from llmpipe.spec.load import Node, Source, parse_value

PROFILE_SECTIONS = ("params", "stages")
"""The sections that a profile may change."""

_RESERVED = re.compile(r"default|.*[+=\s].*|", re.DOTALL)
"""Names that the lock file, which names a section by its profiles, could confuse with others."""


def deep_merge(below: Node, above: Node) -> Node:
    """Return ``below`` with ``above`` laid over it; mappings are merged by key.

    A key lies where its value was written: above, unless both values are mappings.
    """
    if not (isinstance(below.value, dict) and isinstance(above.value, dict)):
        return above
    value, keys = dict(below.value), dict(below.keys)
    for key, node in above.value.items():
        value[key] = deep_merge(value[key], node) if key in value else node
        if value[key] is node and key in above.keys:
            keys[key] = above.keys[key]
    return Node(value, below.location, {**above.keys, **keys}, below.size + above.size)


def apply_profiles(root: Node, names: Sequence[str]) -> Node:
    """Lay the named profiles over the spec, in order.

    Raises:
        UsageError: The spec has no such profile.
        SpecError: A profile holds other keys than ``params`` and ``stages``, or has a reserved
            name.
    """
    profiles = root.find(("profiles",))
    known = list(profiles.value) if profiles and isinstance(profiles.value, dict) else []
    misnamed = _misnamed(profiles) if profiles else []
    if misnamed:
        raise SpecError(misnamed)
    for name in names:
        profile = profiles.find((name,)) if profiles else None
        if profile is None:
            hint = did_you_mean(name, known) or f"it has: {', '.join(known) or 'none'}"
            raise UsageError(f"{root.location.file} has no profile {name!r}", hint=hint)
        problems = profile_problems(name, profile)
        if problems:
            raise SpecError(problems)
        root = deep_merge(root, profile)
    return root


def _misnamed(profiles: Node) -> list[Problem]:
    hint = "use another name: not default, and without +, = and spaces"
    return [
        Problem(f"profiles: {name!r} cannot be the name of a profile", place, hint)
        for name, place in profiles.keys.items()
        if _RESERVED.fullmatch(name)
    ]


def profile_problems(name: str, profile: Node) -> list[Problem]:
    """List what is wrong with the shape of one profile."""
    if not isinstance(profile.value, dict):
        return [Problem(f"profiles.{name}: must be a mapping", profile.location)]
    problems = []
    for key, node in profile.value.items():
        if key not in PROFILE_SECTIONS:
            hint = did_you_mean(key, PROFILE_SECTIONS) or "a profile may hold: params, stages"
            problems.append(
                Problem(f"profiles.{name}: unknown key {key!r}", profile.keys[key], hint)
            )
        elif not isinstance(node.value, dict):
            problems.append(Problem(f"profiles.{name}.{key}: must be a mapping", node.location))
    return problems


def apply_settings(root: Node, settings: Sequence[str]) -> Node:
    """Lay ``--set path=value`` over the spec; values are read as YAML.

    Raises:
        UsageError: A setting is malformed, or its path does not exist.
    """
    for setting in settings:
        if not is_text(setting):
            raise UsageError(f"--set {setting}: not UTF-8 text")
        path, equals, text = setting.partition("=")
        steps = path.strip().split(".")
        if not equals or not all(steps):
            raise UsageError(
                f"--set {setting}: a path and a value are needed",
                hint="such as --set params.base=./model or --set stages.sft.axolotl.max_steps=5",
            )
        if steps[0] not in PROFILE_SECTIONS:
            raise UsageError(
                f"--set {setting}: the path must begin with params. or stages.",
                hint=did_you_mean(steps[0], PROFILE_SECTIONS),
            )
        source = Source(f"--set {setting}", (text,))
        leaf = parse_value(text, source) or Node(None, source.at(1, 1))
        _check_target(root, steps, setting)
        for step in reversed(steps):
            leaf = Node({step: leaf}, leaf.location, {step: leaf.location}, leaf.size + 1)
        root = deep_merge(root, leaf)
    return root


def _check_target(root: Node, steps: list[str], setting: str) -> None:
    """Refuse a path through a stage or a parameter that the spec does not have."""
    parent = root.find((steps[0],))
    known = list(parent.value) if parent and isinstance(parent.value, dict) else []
    if len(steps) < 2 or steps[1] not in known:
        named = steps[1] if len(steps) > 1 else ""
        raise UsageError(
            f"--set {setting}: {root.location.file} has no {'.'.join(steps[:2])}",
            hint=did_you_mean(named, known) or f"it has: {', '.join(known) or 'none'}",
        )
