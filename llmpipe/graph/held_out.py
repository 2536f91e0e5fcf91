"""Find the held-out rows that an artifact was made from."""

from __future__ import annotations

from collections.abc import Mapping

from llmpipe.graph.model import Binding, StageNode
from llmpipe.graph.sources import StageOutput

NAME_TRAIN = "name the rows to train on, such as the output `train`"
ROWS = ("records", "dataset")
OPAQUE = "command"
"""The kind of which only its user knows whether it passes rows on."""


def held_out_in(binding: Binding, nodes: Mapping[str, StageNode]) -> str | None:
    """Return the output with held-out rows that an artifact is or was made from, if any.

    Args:
        binding: The artifact.
        nodes: The stages that may have made it.
    """
    waiting, seen = [binding], set[StageOutput]()
    while waiting:
        source = waiting.pop().source
        if not isinstance(source, StageOutput) or source in seen:
            continue
        seen.add(source)
        node = nodes[source.stage]
        if node.ports.outputs[source.output].held_out:
            return f"{source.stage}.{source.output}"
        if node.kind != OPAQUE:
            waiting += [
                given
                for name, given in node.bindings.items()
                if given.type in ROWS and not _only_compared(node, name)
            ]
    return None


def _only_compared(node: StageNode, name: str) -> bool:
    wanted = node.ports.inputs.get(name)  # a gathered input has a port for each point
    return wanted is not None and wanted.compared
