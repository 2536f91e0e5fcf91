"""Fill ``${params.x}`` and ``${env:NAME}`` into a spec; leave ``${secret:NAME}`` as it is.

A value that is exactly one ``${params.x}`` takes the parameter's type. ``$${`` stands for a literal
``${``. In a command stage's ``run``, ``${inputs.x}`` and ``${outputs.x}`` are left to the stage.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from llmpipe.errors import Location, Problem, did_you_mean, is_text
from llmpipe.spec.load import Node, Scalar

MOST_FILLED = 2_000_000
"""Characters that all parameters together may put into a spec."""

MOST_IN_A_ROW = 50
"""Parameters that may name each other in a row."""

MOST_LEVELS = 100
"""Levels of lists and mappings in such a row of parameters, in total."""

_EXPRESSION = re.compile(r"\$\$\{|\$\{([^{}]*)\}?")
_PARAMETER = re.compile(r"\$\{(\s*params\.[^{}]*)\}")
_SECRET_NAME = re.compile(r"secret:[A-Za-z_][A-Za-z0-9_]*")


def interpolate(
    root: Node, environment: Mapping[str, str] | None = None
) -> tuple[Node, list[Problem]]:
    """Return the spec with every expression filled, and the problems of the others."""
    filler = _Filler(root, os.environ if environment is None else environment)
    if not isinstance(root.value, dict):
        return root, []
    value = dict(root.value)
    for section in ("params", "cache", "stages"):
        if section in value:
            value[section] = filler.fill(value[section], (section,))
    return Node(value, root.location, root.keys, root.size), filler.problems


class _Filler:
    def __init__(self, root: Node, environment: Mapping[str, str]) -> None:
        params = root.find(("params",))
        self.params = params.value if params and isinstance(params.value, dict) else {}
        self.environment = environment
        self.problems: list[Problem] = []
        self.open: list[str] = []  # parameters being filled, to detect a circle
        self.filled: dict[str, Node] = {}
        self.room = MOST_FILLED
        self.level = 0

    def fill(self, node: Node, path: tuple[str | int, ...]) -> Node:
        self.level += 1
        filled = self._filled(node, path)
        self.level -= 1
        return filled

    def _filled(self, node: Node, path: tuple[str | int, ...]) -> Node:
        if isinstance(node.value, dict):
            children = {k: self.fill(v, (*path, k)) for k, v in node.value.items()}
            return Node(children, node.location, node.keys, node.size)
        if isinstance(node.value, list):
            items = [self.fill(v, (*path, i)) for i, v in enumerate(node.value)]
            return Node(items, node.location, size=node.size)
        if isinstance(node.value, str) and "${" in node.value:
            return self._text(node, node.value, path)
        return node

    def _text(self, node: Node, text: str, path: tuple[str | int, ...]) -> Node:
        first = _PARAMETER.match(text)
        if first and first.group() == text:
            found = self._param(first, node.location)
            return self._placed(found, node) if found else node

        def replace(match: re.Match[str]) -> str:
            if match.group() == "$${":
                return "${"
            return self._one(match, node.location, path)

        filled = Node(_EXPRESSION.sub(replace, text), node.location)
        found = self._param(first, node.location) if first else None
        return self._placed(Node(filled.value, found.location), node) if found else filled

    def _placed(self, found: Node, node: Node) -> Node:
        """Return the value of a parameter for the place that uses it.

        A value from another file keeps its own place, because a path belongs to the file that
        contains it.
        """
        same = found.location.file == node.location.file
        where = node.location if same else found.location
        return Node(found.value, where, found.keys, found.size)

    def _one(self, match: re.Match[str], where: Location, path: tuple[str | int, ...]) -> str:
        expression = match.group(1).strip()
        if not match.group().endswith("}"):
            return self._fail(match, where, "the closing brace is missing")
        if expression.startswith("params."):
            found = self._param(match, where)
            if found is None:
                return match.group()
            if isinstance(found.value, (dict, list)):
                return self._fail(match, where, "a list or a mapping cannot be part of a text")
            return _as_text(found.value)
        if expression.startswith("env:"):
            name = expression[4:]
            if name not in self.environment:
                return self._fail(match, where, f"the environment has no variable {name}")
            if not is_text(self.environment[name]):
                return self._fail(match, where, f"the variable {name} is not UTF-8 text")
            return self.environment[name]
        if _SECRET_NAME.fullmatch(expression):
            return match.group()  # filled in by the worker, where it is allowed
        if expression.startswith(("inputs.", "outputs.")) and _is_command(path):
            return match.group()
        if expression.startswith("stages."):
            return self._fail(
                match,
                where,
                "a value known only at run time cannot be used in a spec",
                "make it an artifact: name the stage's output where a reference is taken; "
                "to continue with the best point of a sweep, use a select stage",
            )
        hint = "known: ${params.NAME}, ${env:NAME}, ${secret:NAME}; write $${ for a literal ${"
        return self._fail(match, where, "unknown expression", hint)

    def _param(self, match: re.Match[str], where: Location) -> Node | None:
        name, *rest = match.group(1).strip()[len("params.") :].split(".")
        if name not in self.params:
            hint = (
                did_you_mean(name, self.params) or f"params has: {', '.join(self.params) or 'none'}"
            )
            self._fail(match, where, f"params has no {name!r}", hint)
            return None
        if name in self.open:
            self._fail(match, where, f"parameters in a circle: {' → '.join([*self.open, name])}")
            return None
        too_deep = len(self.open) >= MOST_IN_A_ROW or self.level > MOST_LEVELS
        if too_deep and name not in self.filled:
            self._too_deep(match, where, (*self.open, name)[0])
            return None
        if name not in self.filled:
            self.open.append(name)
            self.filled[name] = self.fill(self.params[name], ("params", name))
            self.open.pop()
        found = self.filled[name].find(tuple(rest))
        if found is None:
            self._fail(match, where, f"params.{name} has no {'.'.join(rest)!r}")
        elif self.room >= 0:
            size, depth = _measured(found, self.room)
            self.room -= size
            if depth > MOST_LEVELS:
                self._too_deep(match, where, name)
                return None
            if self.room < 0:
                self._fail(match, where, f"parameters fill more than {MOST_FILLED:,} characters")
        if self.room < 0:
            return None  # report it once
        return found

    def _too_deep(self, match: re.Match[str], where: Location, first: str) -> None:
        message = (
            f"parameters name one another more than {MOST_IN_A_ROW} times in a row, or too deep"
        )
        self._fail(match, where, message, f"from {first} on: give one of them a literal value")

    def _fail(
        self, match: re.Match[str], where: Location, message: str, hint: str | None = None
    ) -> str:
        problem = Problem(f"{match.group()}: {message}", where, hint)
        if problem not in self.problems:
            self.problems.append(problem)
        return match.group()


def _measured(node: Node, most: int) -> tuple[int, int]:
    """Return the approximate length of a value, counted up to ``most``, and its depth."""
    waiting, size, deepest = [(node, 0)], 0, 0
    while waiting and size <= most:
        inner, depth = waiting.pop()
        value = inner.value
        if isinstance(value, list | dict):
            below = value.values() if isinstance(value, dict) else value
            waiting += [(each, depth + 1) for each in below]
        size += 1 + (len(value) if isinstance(value, str | dict) else 0)
        deepest = max(deepest, depth)
    return size, deepest


def _is_command(path: tuple[str | int, ...]) -> bool:
    """Return whether this is the ``run`` of a stage, or a value of its matrix for it."""
    return path[0] == "stages" and "run" in path[2:4] and path[2] in ("run", "matrix")


def _as_text(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
