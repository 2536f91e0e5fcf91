"""Compile a spec into a graph: resolve references, check artifact types, derive stages, order.

Every problem is collected and reported at its place before anything runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from llmpipe.contracts import ArtifactType, Input, Ports
from llmpipe.errors import Problem, SpecError, did_you_mean
from llmpipe.gguf_parts import part_of
from llmpipe.graph.held_out import NAME_TRAIN, held_out_in
from llmpipe.graph.lineage import other_base, trained_on
from llmpipe.graph.model import Binding, Graph, Point, StageNode, axes_of
from llmpipe.graph.references import either, meaning
from llmpipe.graph.sources import STAGE_REFERENCE, StageOutput
from llmpipe.registry import stage_class
from llmpipe.spec.matrix import MAX_POINTS, point_text
from llmpipe.spec.model import Spec, StageSpec

CONVERSIONS: Mapping[tuple[ArtifactType, ArtifactType], tuple[str, str]] = {
    ("adapter", "model"): ("merge", "adapter"),
    ("gguf", "model"): ("import_gguf", "gguf"),
}
"""Which stage turns one artifact type into another: (given, needed) → (kind, its input)."""

LISTED = 10
"""The number of stages of a circle that a message names."""

WITH_BASE: frozenset[ArtifactType] = frozenset({"adapter", "embeddings", "index"})
"""Artifact types that are used only with a model: the one they were trained on or embedded with."""


def compile_spec(spec: Spec, *, absent: bool = False) -> Graph:
    """Return the graph of a spec.

    Args:
        absent: Accept ``pkg://`` addresses whose package is not installed. Their data is
            `AbsentData` in the graph.

    Raises:
        SpecError: A reference leads nowhere, has the wrong type, or stages form a circle.
    """
    return _Compiler(spec, absent=absent).graph()


class _Compiler:
    def __init__(self, spec: Spec, *, absent: bool) -> None:
        self.spec = spec
        self.absent = absent
        self.members: dict[str, list[StageSpec]] = {}
        for stage in spec.stages.values():
            self.members.setdefault(stage.family, []).append(stage)
        self.nodes: dict[str, StageNode] = {}
        self.families: dict[str, list[StageNode]] = {}
        self.problems: list[Problem] = []
        self.circles: dict[tuple[str, str], list[str]] = {}
        self.broken: set[str] = set()

    def graph(self) -> Graph:
        for family in self._in_order():
            self._visit(family)
        if self.problems:
            raise SpecError(list(dict.fromkeys(self.problems)))
        return Graph(self.spec, self.nodes)

    def _in_order(self) -> list[str]:
        """Return the stages, each after those that it names; record references that form circles.

        The loop keeps its own stack, because a chain of stages may exceed Python's.
        """
        ordered: list[str] = []
        seen: set[str] = set()
        for first in self.members:
            path = {} if first in seen else {first: self._named_by(first)}
            while path:
                family, named = next(reversed(path.items()))
                seen.add(family)
                name = next(named, None)
                if name is None:
                    ordered.append(family)
                    del path[family]
                elif name in path:
                    names = list(path)
                    self.circles[family, name] = [*names[names.index(name) :], name]
                elif name not in seen:
                    path[name] = self._named_by(name)
        return ordered

    def _named_by(self, family: str) -> Iterator[str]:
        for stage in self.members[family]:
            for wanted in stage.stage.ports(stage.config).inputs.values():
                found = STAGE_REFERENCE.fullmatch(wanted.value)
                if found and found["stage"] in self.members:
                    yield found["stage"]

    def _visit(self, family: str) -> list[StageNode] | None:
        """Add a stage at every point, after its upstream stages; return None if any is broken."""
        if family in self.families:
            return self.families[family]
        if family in self.broken:
            return None
        before = len(self.problems)
        made = [node for stage in self.members[family] for node in self._instances(stage)]
        if len(self.problems) > before or family in self.broken:
            self.broken.add(family)
            return None
        self.families[family] = made
        self.nodes.update((node.id, node) for node in made)
        return made

    def _instances(self, stage: StageSpec) -> list[StageNode]:
        """Return one node for each compatible combination of the inputs' sweep points."""
        ports = stage.stage.ports(stage.config)
        choices: dict[str, list[Binding]] = {}
        for port, wanted in ports.inputs.items():
            if wanted.value == "base" and wanted.base_allowed:
                continue  # bound last: it depends on the other inputs
            fitted = [self._fit(stage, wanted, b) for b in self._resolve(stage, wanted)]
            if not fitted or None in fitted:
                self.broken.add(stage.family)  # go on: the other ports are checked too
            choices[port] = [binding for binding in fitted if binding is not None]
        if stage.family in self.broken:
            return []
        ports, gathered = self._gather(stage, ports, choices)
        own: Point = {(stage.family, axis): value for axis, value in stage.point.items()}
        rows: list[tuple[dict[str, Binding], Point]] = [(gathered, own)]
        for port, bindings in choices.items():
            rows = [
                ({**row, port: binding}, merged)
                for row, point in rows
                for binding in bindings
                if (merged := _merged(point, self._point(binding))) is not None
            ]
            if len(rows) > MAX_POINTS:
                self._fail(
                    stage, ports.inputs[port], f"sweeps multiply to over {MAX_POINTS} points"
                )
                return []
        return [self._instance(stage, ports, row, point) for row, point in rows]

    def _gather(
        self, stage: StageSpec, ports: Ports, choices: dict[str, list[Binding]]
    ) -> tuple[Ports, dict[str, Binding]]:
        """Remove inputs that take a whole sweep from the choices; add one port for each point."""
        if not any(item.gather for item in ports.inputs.values()):
            return ports, {}
        inputs = {port: item for port, item in ports.inputs.items() if not item.gather}
        gathered: dict[str, Binding] = {}
        taken: dict[str, set[str]] = {}
        for port, item in ports.inputs.items():
            if item.gather:
                at = {point_name(self._point(b)): b for b in choices.pop(port)}
                taken[item.value] = set(at)
                gathered |= {f"{port}[{point}]": binding for point, binding in at.items()}
                inputs |= {f"{port}[{point}]": item for point in at}
        if any(points != next(iter(taken.values())) for points in taken.values()):
            first, second = list(taken)[:2]
            item = next(i for i in ports.inputs.values() if i.value == second)
            message = f"{second!r} is not made at the points of {first!r}"
            self._fail(stage, item, message, f"name a stage that takes {first!r} and measures it")
        return dataclasses.replace(ports, inputs=inputs), gathered

    def _instance(
        self, stage: StageSpec, ports: Ports, bindings: dict[str, Binding], point: Point
    ) -> StageNode:
        self._bind_base(stage, ports, bindings)
        ordered = {port: bindings[port] for port in ports.inputs if port in bindings}
        self._match_adapters(stage, ports, ordered)
        name = "@".join(filter(None, (stage.family, point_name(point))))
        ports = self._typed(stage, ports, ordered)
        return StageNode(
            name, stage.kind, stage.stage, stage.config, ports, ordered,
            stage.family, point, stage,
        )  # fmt: skip

    def _typed(self, stage: StageSpec, ports: Ports, bindings: Mapping[str, Binding]) -> Ports:
        """Set the type of each output that takes its type from an input; return the ports."""
        if all(output.like is None for output in ports.outputs.values()):
            return ports
        outputs = dict(ports.outputs)
        for name, output in outputs.items():
            if output.like is None:
                continue
            like = output.like.partition("[")[0]
            alike = {p: b for p, b in bindings.items() if p.partition("[")[0] == like}
            port, binding = next(iter(alike.items()))
            if len({(b.type, b.base and b.base.source) for b in alike.values()}) > 1:
                message = "the candidates are of several types or were trained on several models"
                self._fail(stage, ports.inputs[port], message)
            outputs[name] = dataclasses.replace(output, type=binding.type, origin=port)
        return dataclasses.replace(ports, outputs=outputs)

    def _point(self, binding: Binding) -> Point:
        if isinstance(binding.source, StageOutput):
            return self.nodes[binding.source.stage].point
        return {}

    def _resolve(self, stage: StageSpec, wanted: Input) -> list[Binding]:
        """Return what a reference means: one thing, or a stage's output at every sweep point."""
        folder = self.spec.folder_of(stage.locate(wanted.field))
        found = meaning(wanted, folder, self.members, absent=self.absent)
        if isinstance(found, StageOutput):
            return self._output(stage, wanted, found.stage, found.output or None)
        if isinstance(found, Binding):
            return [found]
        self._fail(stage, wanted, found.message, found.hint)
        return []

    def _output(
        self, stage: StageSpec, wanted: Input, name: str, output: str | None
    ) -> list[Binding]:
        if circle := self.circles.get((stage.family, name)):
            self._fail(stage, wanted, f"stages in a circle: {_shown(circle)}")
            return []
        made = self._visit(name)
        if made is None:
            self.broken.add(stage.family)
            return []
        ports = made[0].ports
        output = output or ports.default or _only_fitting(ports, wanted)
        if output is None:
            choices = ", ".join(f"{name}.{o}" for o in ports.outputs)
            message = f"{name!r} has several outputs: say which"
            self._fail(stage, wanted, message, f"one of: {choices}")
            return []
        if any(output not in node.ports.outputs for node in made):
            hint = did_you_mean(output, ports.outputs) or f"it has: {', '.join(ports.outputs)}"
            self._fail(stage, wanted, f"the stage {name!r} has no output {output!r}", hint)
            return []
        measured = [self._has_metric(stage, wanted, made, name) for name in wanted.metrics]
        if not all(measured):
            return []
        return [self._stage_binding(node, output, wanted.value) for node in made]

    def _has_metric(
        self, stage: StageSpec, wanted: Input, made: Sequence[StageNode], metric: str
    ) -> bool:
        """Return whether a stage measures a metric, as far as its kind declares its metrics."""
        way = f"{metric.removeprefix('models.')}."
        for node in made:
            types = {port: binding.type for port, binding in node.bindings.items()}
            measured = node.stage.metrics(node.config, types)
            if measured and not any(way.startswith(f"{name}.") for name in measured):
                hint = did_you_mean(metric, measured) or f"it has: {', '.join(measured)}"
                named = dataclasses.replace(wanted, field=wanted.metrics[metric])
                self._fail(stage, named, f"{wanted.value} has no metric {metric!r}", hint)
                return False
        return True

    def _stage_binding(self, node: StageNode, output: str, label: str) -> Binding:
        declared = node.ports.outputs[output]
        base = node.bindings[declared.origin] if declared.origin else None
        if base is not None and (declared.like or base.type == "embeddings"):
            base = base.base  # an artifact made from the input keeps the input's base
        keep_base = base if declared.type in WITH_BASE else None
        return Binding(StageOutput(node.id, output), declared.type, label, keep_base)

    def _fit(self, stage: StageSpec, wanted: Input, binding: Binding) -> Binding | None:
        """Check the type of a binding; insert a conversion where one is known."""
        if binding.type in wanted.refuse:
            self._fail(stage, wanted, wanted.refuse[binding.type])
            return None
        if not wanted.allow_held_out and (rows := held_out_in(binding, self.nodes)):
            passed = "" if rows == wanted.value else f", and {wanted.value} comes from {rows}"
            self._fail(stage, wanted, f"held-out rows must not shape a model{passed}", NAME_TRAIN)
            return None
        if binding.type == "adapter" and binding.base is None:
            message = f"{wanted.value} is an adapter whose base model this spec does not name"
            self._fail(stage, wanted, message, "train it in this spec, or merge it beforehand")
            return None
        if binding.type in wanted.accepts:
            return binding
        for needed in wanted.accepts:
            if (binding.type, needed) in CONVERSIONS:
                return self._convert(stage, needed, binding)
        needed_types = either(wanted.accepts)
        message = f"{wanted.value!r} is of type {binding.type}; {needed_types} is needed here"
        self._fail(stage, wanted, message, self._fitting_output(binding, wanted))
        return None

    def _convert(self, stage: StageSpec, needed: ArtifactType, given: Binding) -> Binding:
        """Insert the stage that converts to the needed type, unless it is there already."""
        kind, port = CONVERSIONS[given.type, needed]
        name = f"{kind}:{_conversion_name(given)}"
        while name in self.nodes and self.nodes[name].bindings[port].source != given.source:
            name += "~"  # a different file has the same name
        if name not in self.nodes:
            cls = stage_class(kind)
            config = msgspec.convert({"kind": kind, port: given.label}, cls.Config)
            ports = cls.ports(config)
            self.nodes[name] = StageNode(
                name,
                kind,
                cls,
                config,
                ports,
                {port: given},
                family=name.partition("@")[0],
                point=self._point(given),
                derived_for=stage.family,
            )
        node = self.nodes[name]
        assert node.ports.default is not None
        return self._stage_binding(node, node.ports.default, given.label)

    def _bind_base(self, stage: StageSpec, ports: Ports, bindings: dict[str, Binding]) -> None:
        """Bind the word ``base`` to the model that the stage's other models were trained on."""
        inputs = ports.inputs
        asking = [p for p, i in inputs.items() if i.value == "base" and i.base_allowed]
        if not asking:
            return
        wanted = inputs[asking[0]]
        others = [b for p, b in bindings.items() if inputs[p].base_allowed]
        found = (trained_on(other, self.nodes) for other in others)
        bases = {b.source: b for b in found if b is not None}
        if len(bases) != 1:
            several = ", ".join(b.label for b in bases.values())
            message = (
                f"'base' could mean {several}: the models here have several"
                if bases
                else "'base' names the model that the others were trained on, and none was trained"
            )
            self._fail(stage, wanted, message, "name the model itself")
            return
        (base,) = bases.values()
        for port in asking:
            bindings[port] = Binding(base.source, base.type, "base", base.base)

    def _match_adapters(
        self, stage: StageSpec, ports: Ports, bindings: Mapping[str, Binding]
    ) -> None:
        """Require that adapters and the models that they are put on come from one model."""
        for port, wanted in ports.inputs.items():
            if wanted.adapts is None or not {port, wanted.adapts} <= bindings.keys():
                continue
            adapter, model = bindings[port], bindings[wanted.adapts]
            if bases := other_base(adapter, model, self.nodes):
                base, root = (binding.label for binding in bases)
                way = (
                    f"not on {root}" if root == model.label else f"{model.label} comes from {root}"
                )
                message = f"{wanted.value} was trained on {base}; {way}"
                self._fail(stage, wanted, message, f"put it on a GGUF of {base}")

    def _fitting_output(self, binding: Binding, wanted: Input) -> str | None:
        if not isinstance(binding.source, StageOutput):
            return None
        name = binding.source.stage
        fitting = [
            f"{name}.{output}"
            for output, declared in self.nodes[name].ports.outputs.items()
            if declared.type in wanted.accepts
        ]
        return f"did you mean {' or '.join(fitting)}?" if fitting else None

    def _fail(self, stage: StageSpec, wanted: Input, message: str, hint: str | None = None) -> None:
        """Record a problem with an input."""
        where = stage.locate(wanted.field)
        name = ".".join(map(str, ("stages", stage.family, *wanted.field)))
        self.problems.append(Problem(f"{name}: {message}", where, hint))
        return


def _shown(circle: list[str]) -> str:
    names = circle if len(circle) <= LISTED else [*circle[:LISTED], "…", circle[-1]]
    return " → ".join(names)


def _conversion_name(given: Binding) -> str:
    if isinstance(given.source, StageOutput):
        return given.source.stage
    name = given.label.rstrip("/").rpartition("/")[2]
    part = part_of(name)
    return part.stem if part else name.removesuffix(".gguf")


def _only_fitting(ports: Ports, wanted: Input) -> str | None:
    """Return the one output that fits an input that gathers a sweep, or None."""
    fitting = [name for name, output in ports.outputs.items() if output.type in wanted.accepts]
    return fitting[0] if wanted.gather and len(fitting) == 1 else None


def _merged(one: Point, other: Point) -> Point | None:
    """Return two points merged, or None when they differ on an axis that they share."""
    if any(key in one and one[key] != value for key, value in other.items()):
        return None
    return {**one, **other}


def point_name(point: Point) -> str:
    """Return the name of a point, as it appears in the ids of its stages."""
    return point_text(axes_of(point))
