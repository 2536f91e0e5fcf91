"""Estimate how long stages take and how much disk they need, from earlier runs."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmpipe.graph.model import Binding, StageNode
from llmpipe.graph.sources import LocalPath, StageOutput
from llmpipe.runner.project import Project
from llmpipe.runner.records import KeyRecord

MODELS = frozenset({"model", "gguf"})
"""Artifact types that take the space of a whole model."""

UNKNOWN = 1.0
"""Seconds assumed for a stage about which nothing is known."""


SAME_WORK = frozenset({"forced", "missing", "damaged", "tool", "version"})
"""Causes that repeat the work of the last run."""

ROWS = frozenset({"records", "dataset", "documents", "chunks", "embeddings", "file"})
"""Inputs that a stage works through: twice the bytes take twice the time."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much work a stage will do, compared with its last run.

    ``factor`` is None if that cannot be known.
    """

    project: Project
    node: StageNode
    last: KeyRecord
    key_inputs: Mapping[str, Any]
    records: Mapping[str, KeyRecord]
    upstream: Mapping[str, float | None]
    """The factors of its upstream stages that will run."""

    def factor(self, causes: Collection[Mapping[str, Any]]) -> float | None:
        """Return the factor, given the causes of the run."""
        if all(cause["cause"] in SAME_WORK for cause in causes):
            return 1.0
        effort = self.node.stage.effort
        try:
            old, new = effort(self.last.ingredients["config"]), effort(self.key_inputs["config"])
        except (KeyError, TypeError, ValueError, AttributeError):
            return None  # an earlier version may describe its inputs differently
        if old is None or new is None or old.grows != new.grows or old.amount <= 0:
            return None
        head = f"stages.{self.node.family}."
        changed = {str(c["field"]).removeprefix(head) for c in causes if c["cause"] == "config"}
        if changed - new.covers or {"new", "unresolved"} & {c["cause"] for c in causes}:
            return None
        ratio = self._inputs(grows=new.grows)
        return None if ratio is None else new.amount / old.amount * ratio

    def _inputs(self, *, grows: bool) -> float | None:
        """Return how many times more input the stage has than in its last run."""
        before, now = self.last.read, self.project.input_sizes(self.node, self.records)
        old = new = 0.0
        for port, binding in self.node.bindings.items():
            source, rows = binding.source, binding.type in ROWS
            factor = 1.0
            if isinstance(source, StageOutput) and source.stage in self.upstream:
                found = self.upstream[source.stage]
                if found is None:
                    return None
                factor = found if rows else 1.0  # more steps, same size
            elif self.key_inputs["inputs"].get(port) != self.last.ingredients["inputs"].get(port):
                if not before.get(port) or port not in now:
                    return None
                factor = now[port] / before[port]
                if not rows and abs(factor - 1) > 0.01:
                    return None  # another model: its speed is unknown
            if rows:
                old += before.get(port, 1)
                new += before.get(port, 1) * factor
        return new / old if grows and old else 1.0


def last_seconds(project: Project, stage: str) -> float | None:
    """Return the seconds that a stage took in its last run, or None if unknown."""
    record = project.last_record(stage)
    return record.seconds if record else None


def critical_paths(project: Project, dependents: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return each stage's seconds from its start to the end of the longest path below it."""
    longest: dict[str, float] = {}
    for name in reversed(list(project.graph.nodes)):
        after = max((longest[other] for other in dependents[name]), default=0.0)
        own = last_seconds(project, name)
        longest[name] = after + (UNKNOWN if own is None else own)
    return longest


def disk_needed(project: Project, stages: Iterable[str]) -> int:
    """Return the bytes that stages will add to the store, as far as that can be known.

    A stage is assumed to write as much as in its last run. If it has not run yet, each model that
    it makes counts as much as the file or folder that it descends from. That is a lower bound.
    """
    total = 0
    for name in stages:
        record = project.last_record(name)
        if record:
            total += sum(output.size for output in record.outputs.values())
        else:
            total += _models_size(project, name)
    return total


def disk_free(project: Project) -> int:
    """Return the free bytes on the disk of the store, which need not exist yet."""
    home = project.store.home.absolute()
    return shutil.disk_usage(next(p for p in (home, *home.parents) if p.exists())).free


def _models_size(project: Project, stage: str) -> int:
    """Return the lowest possible size of the models that a stage derives from others."""
    node = project.graph.nodes[stage]
    made = [o.origin for o in node.ports.outputs.values() if o.type in MODELS and o.origin]
    return sum(_size(project, node.bindings[origin]) for origin in made)


def _size(project: Project, binding: Binding | None) -> int:
    """Return the size of the file or folder that a model descends from, or 0 if unknown."""
    while binding is not None and isinstance(binding.source, StageOutput):
        node = project.graph.nodes[binding.source.stage]
        origin = node.ports.outputs[binding.source.output].origin
        binding = node.bindings[origin] if origin else None
    if binding is None or not isinstance(binding.source, LocalPath):
        return 0
    path = binding.source.path
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
