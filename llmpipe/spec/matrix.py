"""Fan a stage out over the points of its ``matrix``.

    matrix:
      axolotl.learning_rate: [5e-5, 1e-4]             # an axis: a dotted path inside the stage
      axolotl.lora_r, axolotl.lora_alpha: [[8, 16], [16, 32]]     # linked axes move together
      exclude: [{axolotl.learning_rate: 5e-5, axolotl.lora_r: 16}]
      include: [{axolotl.learning_rate: 1e-3, axolotl.lora_r: 64, axolotl.lora_alpha: 128}]
      max_parallel: 2

The points are all combinations of the axes' values, less those that agree with an entry of
``exclude``, and then those of ``include``. Every point makes a stage of its own, named
``sft@axolotl.learning_rate=0.0001,axolotl.lora_r=8``: axes sorted, values as canonical JSON. What
hangs on it is fanned out by the graph.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmpipe.canonical import canonical_json
from llmpipe.errors import Problem, did_you_mean
from llmpipe.spec.load import Node

SETTINGS = ("exclude", "include", "max_parallel")
"""Keys of a matrix that are no axes."""

MAX_POINTS = 1000


@dataclass(frozen=True, slots=True)
class Variant:
    """One point of a stage's matrix. ``family`` is the stage's id as written."""

    family: str
    point: dict[str, Any]
    node: Node
    max_parallel: int | None = None

    @property
    def id(self) -> str:
        """The id of the stage at this point."""
        return f"{self.family}@{point_text(self.point)}" if self.point else self.family


def point_text(point: dict[str, Any]) -> str:
    """Name a point: axes sorted, values as canonical JSON, texts without quotes."""
    return ",".join(f"{axis}={_shown(point[axis])}" for axis in sorted(point))


def expand(stage_id: str, stage: Node) -> tuple[list[Variant], list[Problem]]:
    """Give a stage at every point of its matrix, or itself when it has none."""
    matrix = stage.find(("matrix",))
    if matrix is None or matrix.value is None:
        return [Variant(stage_id, {}, stage)], []
    name = f"stages.{stage_id}.matrix"
    if not isinstance(matrix.value, dict):
        return [], [Problem(f"{name}: a mapping of axes is needed", matrix.location)]
    reader = _Reader(name, matrix)
    points = reader.points()
    if reader.problems:
        return [], reader.problems
    bare = stage.without("matrix")
    variants = []
    for point in points:
        node = bare
        for axis, value in point.items():
            node = node.replace(tuple(axis.split(".")), value)
        plain = {axis: value.plain() for axis, value in point.items()}
        variants.append(Variant(stage_id, plain, node, reader.max_parallel))
    return variants, []


class _Reader:
    """Reads a matrix and collects what is wrong with it."""

    def __init__(self, name: str, matrix: Node) -> None:
        self.name = name
        self.matrix = matrix
        self.problems: list[Problem] = []
        self.max_parallel: int | None = None
        assert isinstance(matrix.value, dict)
        self.entries = matrix.value

    def points(self) -> list[dict[str, Node]]:
        axes = [self._axis(key, node) for key, node in self.entries.items() if key not in SETTINGS]
        known = [axis for choices in axes for axis in (choices[0] if choices else {})]
        self._settings()
        excluded = list(self._listed("exclude", known))
        points: list[dict[str, Node]] = []
        for combination in itertools.product(*axes):
            point = {axis: value for choice in combination for axis, value in choice.items()}
            if point and not any(_agrees(point, entry) for entry in excluded):
                points.append(point)
            if len(points) > MAX_POINTS:
                self._fail(self.matrix, f"more than {MAX_POINTS} points")
                break
        points += self._listed("include", None)
        if not points and not self.problems:
            self._fail(self.matrix, "no point is left", "give an axis a list of values")
        return list({canonical_json(_plain(point)): point for point in points}.values())

    def _axis(self, key: str, node: Node) -> list[dict[str, Node]]:
        """Give the choices of an axis, or of several linked ones: each a part of a point."""
        names = [name.strip() for name in key.split(",")]
        if not all(step for name in names for step in name.split(".")):
            hint = did_you_mean(key, SETTINGS) or "an axis is a path such as axolotl.learning_rate"
            self._fail(node, f"{key!r} is no axis", hint)
            return []
        if names[0].split(".")[0] in ("kind", "matrix"):
            self._fail(node, f"{names[0].split('.')[0]!r} cannot be an axis")
            return []
        if not isinstance(node.value, list) or not node.value:
            self._fail(node, f"the axis {key!r} needs a list of values")
            return []
        if len(names) == 1:
            return [{names[0]: value} for value in node.value]
        choices = []
        for row in node.value:
            if not isinstance(row.value, list) or len(row.value) != len(names):
                self._fail(row, f"{key!r} are linked: {len(names)} values are needed here")
                continue
            choices.append(dict(zip(names, row.value, strict=True)))
        return choices

    def _settings(self) -> None:
        limit = self.entries.get("max_parallel")
        if limit is None:
            return
        if not isinstance(limit.value, int) or isinstance(limit.value, bool) or limit.value < 1:
            self._fail(limit, "max_parallel: a whole number from 1 on is needed")
        else:
            self.max_parallel = limit.value

    def _listed(self, key: str, known: list[str] | None) -> Iterator[dict[str, Node]]:
        """Give the entries of ``include`` or ``exclude``; the latter name ``known`` axes only."""
        node = self.entries.get(key)
        if node is None:
            return
        if not isinstance(node.value, list):
            self._fail(node, f"{key}: a list of points is needed")
            return
        for entry in node.value:
            if not isinstance(entry.value, dict) or not entry.value:
                self._fail(entry, f"{key}: a point is a mapping of axes to values")
                continue
            for axis in entry.value:
                if known is not None and axis not in known:
                    self._fail(
                        entry, f"{key}: there is no axis {axis!r}", did_you_mean(axis, known)
                    )
            yield entry.value

    def _fail(self, node: Node, message: str, hint: str | None = None) -> None:
        self.problems.append(Problem(f"{self.name}: {message}", node.location, hint))


def _agrees(point: dict[str, Node], entry: dict[str, Node]) -> bool:
    return all(
        axis in point and canonical_json(point[axis].plain()) == canonical_json(value.plain())
        for axis, value in entry.items()
    )


def _plain(point: dict[str, Node]) -> dict[str, Any]:
    return {axis: value.plain() for axis, value in point.items()}


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value)
