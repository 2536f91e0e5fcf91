"""What an artifact descends from: the stages of its way, and the model at its beginning."""

from __future__ import annotations

from dataclasses import dataclass

from llmpipe.graph.model import Binding, Graph
from llmpipe.graph.sources import StageOutput


@dataclass(frozen=True, slots=True)
class Lineage:
    """The way of an artifact, from its own stage back.

    Attributes:
        stages: The stages that made it, the last one first.
        trained: Those of them that trained it.
        root: What the first of them was given; None if an artifact on the way has no origin.
    """

    stages: tuple[str, ...]
    trained: tuple[str, ...]
    root: Binding | None


def lineage(graph: Graph, stage: str, output: str) -> Lineage:
    """Follow an output of a stage back to the model that it descends from."""
    stages, trained = [], []
    source = StageOutput(stage, output)
    while True:
        node = graph.nodes[source.stage]
        made = node.ports.outputs[source.output]
        stages.append(node.id)
        if made.trained:
            trained.append(node.id)
        port = made.origin or (made.like and _first_port(list(node.bindings), made.like))
        if not port:
            return Lineage(tuple(stages), tuple(trained), None)
        binding = node.bindings[port]
        if not isinstance(binding.source, StageOutput):
            return Lineage(tuple(stages), tuple(trained), binding)
        source = binding.source


def _first_port(ports: list[str], like: str) -> str | None:
    """Return the first of the ports that stand for ``like``; all of them have the same base."""
    name = like.partition("[")[0]
    return next((port for port in ports if port.partition("[")[0] == name), None)
