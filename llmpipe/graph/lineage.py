"""What an artifact descends from: the stages of its way, and the model at its beginning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmpipe.contracts import Output
from llmpipe.graph.model import Binding, Graph, StageNode
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


Nodes = Mapping[str, StageNode]


def trained_on(binding: Binding, nodes: Nodes) -> Binding | None:
    """Follow conversions back to a trained model; return the model that it was trained on."""
    while made := _made(binding, nodes):
        node, output = made
        if output.origin is None:
            return None
        binding = node.bindings[output.origin]
        if output.trained:
            return binding
    return None


def other_base(adapter: Binding, model: Binding, nodes: Nodes) -> tuple[Binding, Binding] | None:
    """Return the model that an adapter was trained on, and another one that ``model`` comes from.

    Return None if they are one model, or if this is not known. Two files may hold one model if one
    of them is a GGUF and neither was trained here.
    """
    base = trained_on(adapter, nodes)
    while base is not None and base.type == "adapter":  # its training was continued
        base = base.base
    if base is None:
        return None
    roots = _root(base, nodes), _root(model, nodes)
    trained = [_was_trained(root, nodes) for root in roots]
    unknown = any(root.type == "gguf" for root in roots) and not any(trained)
    return None if unknown or roots[0].source == roots[1].source else roots


def _root(binding: Binding, nodes: Nodes) -> Binding:
    """Follow conversions back to what was trained, or to what the first of them was given."""
    while made := _made(binding, nodes):
        node, output = made
        if output.trained or output.origin is None:
            break
        binding = node.bindings[output.origin]
    return binding


def _was_trained(binding: Binding, nodes: Nodes) -> bool:
    made = _made(binding, nodes)
    return made is not None and made[1].trained


def _made(binding: Binding, nodes: Nodes) -> tuple[StageNode, Output] | None:
    """Return the stage and the output that made an artifact, or None if no stage did."""
    if not isinstance(binding.source, StageOutput):
        return None
    node = nodes[binding.source.stage]
    return node, node.ports.outputs[binding.source.output]
