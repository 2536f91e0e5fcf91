"""Compile a spec into a graph: resolve references, check artifact types, derive stages, order.

Every problem is collected and reported at its place before anything runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from llmpipe.contracts import ArtifactType, Input, Ports, Stage, StageConfig
from llmpipe.errors import Problem, SpecError, did_you_mean
from llmpipe.graph.sources import (
    HUB_ID,
    STAGE_REFERENCE,
    HubRepo,
    LocalPath,
    Source,
    StageOutput,
    is_path,
    local_path,
    package_path,
    path_type,
)
from llmpipe.registry import stage_class
from llmpipe.spec.model import Spec, StageSpec

CONVERSIONS: Mapping[tuple[ArtifactType, ArtifactType], tuple[str, str]] = {
    ("adapter", "model"): ("merge", "adapter"),
    ("gguf", "model"): ("import_gguf", "gguf"),
}
"""Which stage turns one artifact type into another: (given, needed) → (kind, its input)."""

HUB_TYPES: tuple[ArtifactType, ...] = ("model", "adapter", "records", "dataset")


@dataclass(frozen=True, slots=True)
class Binding:
    """What an input is bound to. An adapter carries the binding of the model it was trained on."""

    source: Source
    type: ArtifactType
    label: str
    base: Binding | None = None


@dataclass(frozen=True, slots=True)
class StageNode:
    """One stage of the graph, its inputs bound. ``derived_for`` names the stage it was made for."""

    id: str
    kind: str
    stage: type[Stage]
    config: StageConfig
    ports: Ports
    bindings: Mapping[str, Binding]
    derived_for: str | None = None

    def upstream(self) -> list[str]:
        """Name the stages that this one reads from, each once, in the order of its inputs."""
        found: dict[str, None] = {}
        for binding in self.bindings.values():
            current: Binding | None = binding
            while current is not None:
                if isinstance(current.source, StageOutput):
                    found[current.source.stage] = None
                current = current.base
        return list(found)


@dataclass(frozen=True, slots=True)
class Graph:
    """The stages in an order in which each stands after what it needs."""

    spec: Spec
    nodes: Mapping[str, StageNode] = field(default_factory=dict)

    def dependents(self, stage: str) -> list[str]:
        """Name every stage that hangs on this one, near or far, in graph order."""
        found = {stage}
        for node in self.nodes.values():
            if found & set(node.upstream()):
                found.add(node.id)
        return [name for name in self.nodes if name in found and name != stage]

    def needs(self, stage: str) -> list[str]:
        """Name every stage that this one hangs on, near or far, in graph order."""
        found = {stage}
        for node in reversed(list(self.nodes.values())):
            if node.id in found:
                found.update(node.upstream())
        return [name for name in self.nodes if name in found and name != stage]


def compile_spec(spec: Spec) -> Graph:
    """Give the graph of a spec.

    Raises:
        SpecError: a reference leads nowhere, has the wrong type, or stages form a circle.
    """
    return _Compiler(spec).graph()


class _Compiler:
    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.ports = {name: s.stage.ports(s.config) for name, s in spec.stages.items()}
        self.nodes: dict[str, StageNode] = {}
        self.problems: list[Problem] = []
        self.visiting: list[str] = []
        self.broken: set[str] = set()

    def graph(self) -> Graph:
        for name in self.spec.stages:
            self._visit(name)
        if self.problems:
            raise SpecError(list(dict.fromkeys(self.problems)))
        return Graph(self.spec, self.nodes)

    def _visit(self, name: str) -> StageNode | None:
        """Add a stage after all that it needs; None when it or one of those is broken."""
        if name in self.nodes:
            return self.nodes[name]
        if name in self.broken:
            return None
        stage = self.spec.stages[name]
        self.visiting.append(name)
        bindings: dict[str, Binding] = {}
        before = len(self.problems)
        for port, wanted in self.ports[name].inputs.items():
            if wanted.value == "base" and wanted.base_allowed:
                continue  # known only when the others are
            binding = self._bind(stage, wanted)
            if binding is not None:
                bindings[port] = binding
        self._bind_base(stage, bindings)
        self.visiting.pop()
        missing = len(bindings) < len(self.ports[name].inputs)
        if missing or len(self.problems) > before:
            self.broken.add(name)
            return None
        ordered = {port: bindings[port] for port in self.ports[name].inputs}
        self.nodes[name] = StageNode(
            name, stage.kind, stage.stage, stage.config, self.ports[name], ordered
        )
        return self.nodes[name]

    def _bind(self, stage: StageSpec, wanted: Input) -> Binding | None:
        binding = self._resolve(stage, wanted)
        return self._fit(stage, wanted, binding) if binding else None

    def _resolve(self, stage: StageSpec, wanted: Input) -> Binding | None:
        """Find what a reference means."""
        text = wanted.value
        if text.startswith("pkg://"):
            found = package_path(text)
            if isinstance(found, str):
                hint = "install it, or see what packages carry with `pip show -f`"
                return self._fail(stage, wanted, f"{text}: {found}", hint)
            return self._file(stage, wanted, found)
        if is_path(text):
            return self._file(stage, wanted, local_path(text, self.spec.folder))
        reference = STAGE_REFERENCE.fullmatch(text)
        if reference and (reference["stage"] in self.spec.stages or "/" not in text):
            return self._output(stage, wanted, reference["stage"], reference["output"])
        hub = HUB_ID.fullmatch(text)
        if hub:
            if (self.spec.folder / text).exists():
                return self._fail(
                    stage,
                    wanted,
                    f"{text!r} could be a hub id or the folder beside the spec",
                    f"for the folder write ./{text}",
                )
            type_ = next((t for t in wanted.accepts if t in HUB_TYPES), None)
            if type_:
                return Binding(HubRepo(hub["repo"], hub["revision"]), type_, text)
        return self._fail(
            stage,
            wanted,
            f"{text!r} is no stage, no path and no hub id",
            "a path begins with ./, ../, / or ~",
        )

    def _file(self, stage: StageSpec, wanted: Input, path: Path) -> Binding | None:
        if not path.exists():
            hint = _near_file(path)
            return self._fail(stage, wanted, f"no such file or folder: {wanted.value}", hint)
        type_ = path_type(path, wanted.accepts)
        if type_ is None:
            what = "a folder without a config.json" if path.is_dir() else "a plain file"
            return self._fail(
                stage, wanted, f"{wanted.value} is {what}; {_either(wanted.accepts)} is needed here"
            )
        return Binding(LocalPath(path), type_, wanted.value)

    def _output(
        self, stage: StageSpec, wanted: Input, name: str, output: str | None
    ) -> Binding | None:
        if name not in self.spec.stages:
            hint = did_you_mean(name, self.spec.stages) or (
                f"stages: {', '.join(self.spec.stages)}; a path begins with ./"
            )
            return self._fail(stage, wanted, f"there is no stage {name!r}", hint)
        if name in self.visiting:
            circle = [*self.visiting[self.visiting.index(name) :], name]
            return self._fail(stage, wanted, f"stages in a circle: {' → '.join(circle)}")
        ports = self.ports[name]
        output = output or ports.default
        if output is None:
            choices = ", ".join(f"{name}.{o}" for o in ports.outputs)
            return self._fail(
                stage, wanted, f"{name!r} has several outputs: say which", f"one of: {choices}"
            )
        if output not in ports.outputs:
            hint = did_you_mean(output, ports.outputs) or f"it has: {', '.join(ports.outputs)}"
            return self._fail(stage, wanted, f"the stage {name!r} has no output {output!r}", hint)
        node = self._visit(name)
        if node is None:
            self.broken.add(stage.id)
            return None
        return self._stage_binding(node, output, wanted.value)

    def _stage_binding(self, node: StageNode, output: str, label: str) -> Binding:
        declared = node.ports.outputs[output]
        base = node.bindings[declared.origin] if declared.origin else None
        keep_base = base if declared.type == "adapter" else None
        return Binding(StageOutput(node.id, output), declared.type, label, keep_base)

    def _fit(self, stage: StageSpec, wanted: Input, binding: Binding) -> Binding | None:
        """Check the type; derive a conversion where one is known and never a matter of choice."""
        if binding.type in wanted.refuse:
            return self._fail(stage, wanted, wanted.refuse[binding.type])
        if binding.type == "adapter" and binding.base is None:
            return self._fail(
                stage,
                wanted,
                f"{wanted.value} is an adapter whose base model this spec does not name",
                "train it in this spec, or merge it beforehand",
            )
        if binding.type in wanted.accepts:
            return binding
        for needed in wanted.accepts:
            if (binding.type, needed) in CONVERSIONS:
                return self._convert(stage, needed, binding)
        hint = self._fitting_output(binding, wanted)
        return self._fail(
            stage,
            wanted,
            f"{wanted.value!r} is of type {binding.type}; {_either(wanted.accepts)} is needed here",
            hint,
        )

    def _convert(self, stage: StageSpec, needed: ArtifactType, given: Binding) -> Binding:
        """Insert the stage that turns what is given into what is needed; the same one only once."""
        kind, port = CONVERSIONS[given.type, needed]
        name = f"{kind}:{_conversion_name(given)}"
        while name in self.nodes and self.nodes[name].bindings[port].source != given.source:
            name += "~"  # another file of the same name
        if name not in self.nodes:
            cls = stage_class(kind)
            config = msgspec.convert({"kind": kind, port: given.label}, cls.Config)
            ports = cls.ports(config)
            self.nodes[name] = StageNode(
                name, kind, cls, config, ports, {port: given}, derived_for=stage.id
            )
        node = self.nodes[name]
        assert node.ports.default is not None
        return self._stage_binding(node, node.ports.default, given.label)

    def _bind_base(self, stage: StageSpec, bindings: dict[str, Binding]) -> None:
        """Bind the word ``base`` to the model that the stage's other models were trained on."""
        inputs = self.ports[stage.id].inputs
        asking = [p for p, i in inputs.items() if i.value == "base" and i.base_allowed]
        if not asking or stage.id in self.broken:
            return
        wanted = inputs[asking[0]]
        others = [b for p, b in bindings.items() if inputs[p].base_allowed]
        bases = {b.source: b for b in map(self._trained_on, others) if b is not None}
        if len(bases) != 1:
            found = ", ".join(b.label for b in bases.values())
            message = (
                f"'base' could mean {found}: the models here have several"
                if bases
                else "'base' names the model that the others were trained on, and none was trained"
            )
            self._fail(stage, wanted, message, "name the model itself")
            return
        (base,) = bases.values()
        for port in asking:
            bindings[port] = Binding(base.source, base.type, "base", base.base)

    def _trained_on(self, binding: Binding) -> Binding | None:
        """Follow conversions back to a trained model and give what that one was trained on."""
        while isinstance(binding.source, StageOutput):
            node = self.nodes[binding.source.stage]
            output = node.ports.outputs[binding.source.output]
            if output.origin is None:
                return None
            binding = node.bindings[output.origin]
            if output.trained:
                return binding
        return None

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

    def _fail(
        self, stage: StageSpec, wanted: Input, message: str, hint: str | None = None
    ) -> Binding | None:
        """Note a problem; there is no binding then."""
        where = stage.locate(wanted.field)
        name = ".".join(map(str, ("stages", stage.id, *wanted.field)))
        self.problems.append(Problem(f"{name}: {message}", where, hint))
        return None


def _conversion_name(given: Binding) -> str:
    if isinstance(given.source, StageOutput):
        return given.source.stage
    return given.label.rstrip("/").rpartition("/")[2].removesuffix(".gguf")


def _either(types: tuple[ArtifactType, ...]) -> str:
    words = [
        f"{'an' if t[0] in 'aei' else 'a'} {t}" if t != "records" else "records" for t in types
    ]
    return " or ".join(words)


def _near_file(path: Path) -> str | None:
    if not path.parent.is_dir():
        return f"the folder {path.parent.name}/ does not exist either"
    names = [entry.name for _, entry in zip(range(1000), path.parent.iterdir(), strict=False)]
    return did_you_mean(path.name, names)
