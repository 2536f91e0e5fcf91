"""The graph as data: stages, what their inputs are bound to, and what hangs on what."""

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
    """Give a point by axis, or by stage and axis where two stages have the same axis."""
    axes = [axis for _, axis in point]
    return {
        axis if axes.count(axis) == 1 else f"{stage}.{axis}": value
        for (stage, axis), value in point.items()
    }


@dataclass(frozen=True, slots=True)
class Binding:
    """What an input is bound to.

    An adapter carries the binding of the model that it was trained on, embeddings and an index that
    of their embedder.
    """

    source: Source
    type: ArtifactType
    label: str
    base: Binding | None = None


@dataclass(frozen=True, slots=True)
class StageNode:
    """One stage of the graph, its inputs bound.

    ``family`` is the id as the spec writes it, ``point`` its place in a sweep. ``declared`` is
    where the spec declares it; a derived stage has none and names the one that it is for.
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
        """Name the stages that this one reads from, each once, in the order of its inputs."""
        stages = (s.stage for s in self.sources() if isinstance(s, StageOutput))
        return list(dict.fromkeys(stages))

    def sources(self) -> Iterator[Source]:
        """Give what this stage reads from, the models below adapters included."""
        return (binding.source for binding in self.bound())

    def bound(self) -> Iterator[Binding]:
        """Yield the bindings of the inputs, those of the models below adapters included."""
        for binding in self.bindings.values():
            current: Binding | None = binding
            while current is not None:
                yield current
                current = current.base


@dataclass(frozen=True)
class Graph:
    """The stages in an order in which each stands after what it needs."""

    spec: Spec
    nodes: Mapping[str, StageNode] = field(default_factory=dict)

    @cached_property
    def families(self) -> Mapping[str, list[str]]:
        """The ids of the stages that each id of the spec stands for."""
        found: dict[str, list[str]] = {}
        for node in self.nodes.values():
            found.setdefault(node.family, []).append(node.id)
        return found

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

    def lacking_data(self) -> list[str]:
        """Name the stages that read what a package carries which is still to be installed."""
        return [
            name
            for name, node in self.nodes.items()
            if any(isinstance(source, AbsentData) for source in node.sources())
        ]
