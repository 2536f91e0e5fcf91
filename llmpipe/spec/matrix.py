"""Fan a stage out over the points of its ``matrix``.

    matrix:
      axolotl.learning_rate: [5e-5, 1e-4]             # an axis: a dotted path inside the stage
      axolotl.lora_r, axolotl.lora_alpha: [[8, 16], [16, 32]]     # linked axes move together
      exclude: [{axolotl.learning_rate: 5e-5, axolotl.lora_r: 16}]
      include: [{axolotl.learning_rate: 1e-3, axolotl.lora_r: 64, axolotl.lora_alpha: 128}]
      max_parallel: 2

The points are all combinations of the axes' values, without those that match an entry of
``exclude``, plus those of ``include``. Every point becomes its own stage, such as
``sft@axolotl.learning_rate=0.0001,axolotl.lora_r=8``: axes sorted, values as canonical JSON. The
graph fans out the stages that depend on it.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from llmpipe.canonical import canonical_json
from llmpipe.errors import Location, Problem, did_you_mean
from llmpipe.spec.load import Node

SETTINGS = ("exclude", "include", "max_parallel")
"""Keys of a matrix that are not axes."""

MAX_POINTS = 1000

MAX_COMBINATIONS = 100 * MAX_POINTS
"""Maximum number of combinations before ``exclude`` is applied."""

_AXIS = re.compile(r"[\w-]+(\.[\w-]+)*")
_PLAIN_TEXT = re.compile(r"[\w./:~@+-]+")


@dataclass(frozen=True, slots=True)
class Variant:
    """One point of a stage's matrix.

    ``family`` is the stage's id as written, ``notes`` are about renamed fields.
    """

    family: str
    point: dict[str, Any]
    node: Node
    max_parallel: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The id of the stage at this point."""
        return f"{self.family}@{point_text(self.point)}" if self.point else self.family


@dataclass(frozen=True, slots=True)
class _Value:
    """The value of an axis, and the place of the axis."""

    node: Node
    key: Location


_Point = dict[str, _Value]


def point_text(point: dict[str, Any]) -> str:
    """Return the name of a point: axes sorted, values as canonical JSON; names are unique."""
    return ",".join(f"{axis}={value_text(point[axis])}" for axis in sorted(point))


def value_text(value: Any) -> str:
    """Return a value as canonical JSON; a word that cannot be mistaken needs no quotes."""
    if isinstance(value, str) and _PLAIN_TEXT.fullmatch(value) and not _is_json(value):
        return value
    return canonical_json(value)


def expand(stage_id: str, stage: Node) -> tuple[list[Variant], list[Problem]]:
    """Return a stage at every point of its matrix, or the stage itself if it has none."""
    matrix = stage.find(("matrix",))
    if matrix is None or matrix.value is None:
        return [Variant(stage_id, {}, stage)], []
    name = f"stages.{stage_id}.matrix"
    if not isinstance(matrix.value, dict):
        return [], [Problem(f"{name}: must be a mapping of axes", matrix.location)]
    bare = stage.without("matrix")
    reader = _Reader(name, matrix, bare)
    points = reader.points()
    if reader.problems:
        return [], reader.problems
    variants = []
    for point in points:
        node = bare
        for axis, value in point.items():
            node = node.replace(tuple(axis.split(".")), value.node, value.key)
        variants.append(Variant(stage_id, _plain(point), node, reader.max_parallel))
    return variants, []


class _Reader:
    """Reads a matrix and collects its problems."""

    def __init__(self, name: str, matrix: Node, stage: Node) -> None:
        self.name = name
        self.matrix = matrix
        self.stage = stage
        self.problems: list[Problem] = []
        self.max_parallel: int | None = None
        self.entries = matrix.children()

    def points(self) -> list[_Point]:
        written = {key: node for key, node in self.entries.items() if key not in SETTINGS}
        named = [(axis, self.matrix.keys[key]) for key in written for axis in _axes(key)]
        self._check_axes(named)
        choices = [self._choices(key, node) for key, node in written.items()]
        self._settings()
        excluded = list(self._listed("exclude", [axis for axis, _ in named]))
        included = list(self._listed("include", None))
        if self.problems:
            return []
        points = [*self._combined(choices, excluded), *included]
        if len(points) > MAX_POINTS:
            self._fail(self.matrix.location, f"more than {MAX_POINTS} points")
        elif not points and not self.problems:
            self._fail(self.matrix.location, "no point is left", "give an axis a list of values")
        return list({canonical_json(_plain(point)): point for point in points}.values())

    def _combined(self, choices: list[list[_Point]], excluded: list[_Point]) -> Iterator[_Point]:
        """Yield every combination that ``exclude`` leaves."""
        count = math.prod(len(several) for several in choices)
        if count > MAX_COMBINATIONS:
            self._fail(self.matrix.location, f"{count:,} combinations are too many")
        elif choices:
            for combination in itertools.product(*choices):
                point = {axis: value for choice in combination for axis, value in choice.items()}
                if not any(_agrees(point, entry) for entry in excluded):
                    yield point

    def _check_axes(self, named: Iterable[tuple[str, Location]]) -> None:
        """Refuse axes that cannot exist, that appear twice, or that are inside another axis."""
        seen: list[str] = []
        for axis, where in named:
            self._check_axis(axis, where)
            for other in seen:
                if axis == other:
                    self._fail(where, f"the axis {axis!r} appears twice")
                elif f"{axis}.".startswith(f"{other}.") or f"{other}.".startswith(f"{axis}."):
                    inner, outer = sorted((axis, other), key=len, reverse=True)
                    self._fail(where, f"the axis {inner!r} is inside the axis {outer!r}")
            seen.append(axis)

    def _check_axis(self, axis: str, where: Location) -> None:
        first, *_ = steps = axis.split(".")
        if not _AXIS.fullmatch(axis):
            hint = did_you_mean(axis, SETTINGS) or "an axis is a path such as axolotl.learning_rate"
            self._fail(where, f"{axis!r} is not an axis", hint)
        elif first in ("kind", "matrix"):
            self._fail(where, f"{first!r} cannot be an axis")
        for i in range(1, len(steps)):
            held = self.stage.find(tuple(steps[:i]))
            if held is not None and not isinstance(held.value, dict) and held.value is not None:
                above = ".".join(steps[:i])
                what = "a list" if isinstance(held.value, list) else "a single value"
                message = f"{axis!r} does not exist: {above!r} is {what}"
                self._fail(where, message, f"make {above!r} the axis, each of its values whole")
                return

    def _choices(self, key: str, node: Node) -> list[_Point]:
        """Return the choices of an axis, or of several linked ones; each is a part of a point."""
        names, where = _axes(key), self.matrix.keys[key]
        if not isinstance(node.value, list) or not node.value:
            self._fail(node.location, f"the axis {key!r} needs a list of values")
            return []
        if len(names) == 1:
            return [{names[0]: _Value(value, where)} for value in node.value]
        choices = []
        for row in node.value:
            if not isinstance(row.value, list) or len(row.value) != len(names):
                message = f"{key!r} are linked: {len(names)} values are needed here"
                self._fail(row.location, message)
                continue
            values = (_Value(value, where) for value in row.value)
            choices.append(dict(zip(names, values, strict=True)))
        return choices

    def _settings(self) -> None:
        limit = self.entries.get("max_parallel")
        if limit is None:
            return
        if not isinstance(limit.value, int) or isinstance(limit.value, bool) or limit.value < 1:
            self._fail(limit.location, "max_parallel: must be a whole number of at least 1")
        else:
            self.max_parallel = limit.value

    def _listed(self, key: str, known: list[str] | None) -> Iterator[_Point]:
        """Yield the entries of ``include`` or ``exclude``; the latter only have ``known`` axes."""
        node = self.entries.get(key)
        if node is None:
            return
        if not isinstance(node.value, list):
            self._fail(node.location, f"{key}: must be a list of points")
            return
        for entry in node.value:
            if not isinstance(entry.value, dict) or not entry.value:
                self._fail(entry.location, f"{key}: a point is a mapping of axes to values")
                continue
            if known is None:
                self._check_axes(entry.keys.items())
            for axis in entry.value:
                if known is not None and axis not in known:
                    hint = did_you_mean(axis, known) or f"axes: {', '.join(known) or 'none'}"
                    self._fail(entry.keys[axis], f"{key}: there is not an axis {axis!r}", hint)
            yield {axis: _Value(value, entry.keys[axis]) for axis, value in entry.value.items()}

    def _fail(self, where: Location, message: str, hint: str | None = None) -> None:
        self.problems.append(Problem(f"{self.name}: {message}", where, hint))


def _axes(key: str) -> list[str]:
    return [name.strip() for name in key.split(",")]


def _agrees(point: _Point, entry: _Point) -> bool:
    return all(
        axis in point
        and canonical_json(point[axis].node.plain()) == canonical_json(value.node.plain())
        for axis, value in entry.items()
    )


def _plain(point: _Point) -> dict[str, Any]:
    return {axis: value.node.plain() for axis, value in point.items()}


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
