"""Which models train on artifacts with certain rows, and what is made from those models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llmpipe.api.stored import Stored
from llmpipe.errors import LlmpipeError
from llmpipe.graph.model import Binding, Graph
from llmpipe.graph.sources import Source, StageOutput

MODELS = frozenset({"model", "adapter", "gguf"})
"""The types of artifacts that are models."""

REJECTS = "rejects"
"""The output of stages that say why they dropped rows."""

TRAINS_ON = "data"
"""The input of a training whose rows it learns from; others it is measured on."""


@dataclass(frozen=True, slots=True)
class ModelUse:
    """A training or a measurement that reads a row.

    Attributes:
        stage: the stage.
        reads: the artifact or file with the row.
        trains: whether the stage learns from the row; otherwise it is measured on it.
        descendants: whether it is not the row itself, but rows that descend from it.
        made: whether the stage's artifacts are up to date, or were made by the run that is meant.
        models: the stages that make models of the trained one: merges, exports.
    """

    stage: str
    reads: str
    trains: bool
    descendants: bool
    made: bool
    models: tuple[str, ...] = ()


def trained_models(
    stored: Stored, lies: Mapping[Source, None], descend: Mapping[Source, None]
) -> list[ModelUse]:
    """Return who trains or is measured on artifacts.

    Args:
        stored: what the stages have made.
        lies: the artifacts and files with the row itself.
        descend: those with rows that descend from it.
    """
    return [*_uses(stored, lies, descendants=False), *_uses(stored, descend, descendants=True)]


def _uses(stored: Stored, where: Mapping[Source, None], *, descendants: bool) -> Iterator[ModelUse]:
    graph = stored.project.graph
    kept = {s for s in where if not (isinstance(s, StageOutput) and s.output == REJECTS)}
    for node in graph.nodes.values():
        outputs = {output.type for output in node.ports.outputs.values()}
        made_of = any(binding.type in MODELS for binding in node.bindings.values())
        if not outputs & MODELS and not (made_of and "metrics" in outputs):
            continue
        for port, binding in node.bindings.items():
            if binding.source in kept:
                trains = bool(outputs & MODELS) and port == TRAINS_ON
                models = tuple(_models_of(graph, node.id)) if trains else ()
                yield ModelUse(
                    node.id, _name(binding), trains, descendants, is_made(stored, node.id), models
                )


def _name(binding: Binding) -> str:
    source = binding.source
    if isinstance(source, StageOutput):
        return f"{source.stage}.{source.output}"
    return binding.label


def _models_of(graph: Graph, stage: str) -> Iterator[str]:
    """Yield the stages that make models of a trained one."""
    for name in graph.dependents(stage):
        if any(output.type in MODELS for output in graph.nodes[name].ports.outputs.values()):
            yield name


def is_made(stored: Stored, stage: str) -> bool:
    """Return whether a stage's artifacts are up to date, or were made by the run that is meant."""
    try:
        stored.record(stage)
    except LlmpipeError:
        return False
    return True
