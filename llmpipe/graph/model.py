"""The graph as data: stages, the bindings of their inputs, and their dependencies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from llmpipe.contracts import ArtifactType, Ports, Stage, StageConfig
from llmpipe.graph.sources import AbsentData, Source, StageOutput
from llmpipe.spec.model import Spec, StageSpec

Point = Mapping[tuple[str, str], Any]
"""Where a stage stands in a sweep: values by (the stage whose matrix it is, axis)."""


def axes_of(point: Point) -> dict[str, Any]:
    """Return a point's values by axis, or by stage and axis where two stages share an axis."""
    axes = [axis for _, axis in point]
    return {
        axis if axes.count(axis) == 1 else f"{stage}.{axis}": value
        for (stage, axis), value in point.items()
    }


@dataclass(frozen=True, slots=True)
class Binding:
    """What an input is bound to.

    ``base`` is the binding of the model that an adapter was trained on, or of the embedder of
    embeddings and an index.
    """

    source: Source
    type: ArtifactType
    label: str
    base: Binding | None = None


@dataclass(frozen=True, slots=True)
class StageNode:
    """One stage of the graph, its inputs bound.

    ``family`` is the id as the spec writes it, ``point`` the stage's place in a sweep.
    ``declared`` is the declaration in the spec. A derived stage has none; ``derived_for`` names
    the stage that it was added for.
    """

    id: str
    kind: str
    stage: type[Stage]
    config: StageConfig
    ports: Ports
    bindings: Mapping[str, Binding]
    family: str
    point: Point = field(default_factory=dict)
    declared: StageSpec | None = None
    derived_for: str | None = None

    def upstream(self) -> list[str]:
        """Return the stages that this one reads from, each once, in the order of its inputs."""
        stages = (s.stage for s in self.sources() if isinstance(s, StageOutput))
        return list(dict.fromkeys(stages))

    def sources(self) -> Iterator[Source]:
        """Return the sources that this stage reads, including the models below adapters."""
        return (binding.source for binding in self.bound())

    def bound(self) -> Iterator[Binding]:
        """Yield the bindings of the inputs, including those of the models below adapters."""
        for binding in self.bindings.values():
            current: Binding | None = binding
            while current is not None:
                yield current
                current = current.base


@dataclass(frozen=True)
class Graph:
    """The stages, each after the stages that it depends on."""

    spec: Spec
    nodes: Mapping[str, StageNode] = field(default_factory=dict)

    @cached_property
    def families(self) -> Mapping[str, list[str]]:
        """The ids of the stages that each id in the spec stands for."""
        found: dict[str, list[str]] = {}
        for node in self.nodes.values():
            found.setdefault(node.family, []).append(node.id)
        return found

    @cached_property
    def taken(self) -> frozenset[tuple[str, str]]:
        """The outputs that stages take, each with the stage that makes it."""
        sources = (source for node in self.nodes.values() for source in node.sources())
        return frozenset((s.stage, s.output) for s in sources if isinstance(s, StageOutput))

    def required_outputs(self, stage: str) -> list[str]:
        """Return the outputs without which what a stage has made is not up to date."""
        outputs = self.nodes[stage].ports.outputs
        return [n for n, o in outputs.items() if not o.optional or (stage, n) in self.taken]

    def dependents(self, stage: str) -> list[str]:
        """Return every stage that depends on this one, directly or not, in graph order."""
        found = {stage}
        for node in self.nodes.values():
            if found & set(node.upstream()):
                found.add(node.id)
        return [name for name in self.nodes if name in found and name != stage]

    def needs(self, stage: str) -> list[str]:
        """Return every stage that this one depends on, directly or not, in graph order."""
        found = {stage}
        for node in reversed(list(self.nodes.values())):
            if node.id in found:
                found.update(node.upstream())
        return [name for name in self.nodes if name in found and name != stage]

    def lacking_data(self) -> list[str]:
        """Return the stages that read data of a package that is not installed yet."""
        return [
            name
            for name, node in self.nodes.items()
            if any(isinstance(source, AbsentData) for source in node.sources())
        ]
