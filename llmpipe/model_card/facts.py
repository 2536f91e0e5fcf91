"""The facts of a model card: what is published, from which model, rows, settings and versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmpipe.backends.huggingface.license import License
from llmpipe.contracts import ArtifactType
from llmpipe.graph.model import Binding, Graph, StageNode
from llmpipe.graph.sources import HubRepo, LocalGlob, LocalPath, StageOutput
from llmpipe.runner.records import Entry, KeyRecord, StoredOutput

FindRecord = Callable[[str], KeyRecord | None]
"""Returns what a stage made, or None if that is not up to date."""


@dataclass(frozen=True, slots=True)
class Piece:
    """An artifact that is published, and its files by their names in the repository."""

    stage: str
    output: str
    type: ArtifactType
    stored: StoredOutput
    files: Mapping[str, Entry]

    @property
    def label(self) -> str:
        """Its name in a spec."""
        return f"{self.stage}.{self.output}"


@dataclass(frozen=True, slots=True)
class BaseModel:
    """The model that was trained: a repository of the hub, or a file or folder of someone's."""

    label: str
    digest: str
    repo: str | None = None
    commit: str | None = None
    license: License | None = None
    unread: bool = False
    """Whether the hub could not be asked for its license."""


@dataclass(frozen=True, slots=True)
class RowSource:
    """Where rows come from: a repository at a commit, or a file by its name and digest."""

    stage: str
    label: str
    version: str
    repo: str | None = None


@dataclass(frozen=True, slots=True)
class CardFacts:
    """All facts of a card."""

    repo: str
    spec: str
    document: Mapping[str, Any]
    graph: Graph
    pieces: Sequence[Piece]
    bases: Sequence[BaseModel]
    license: License
    records: Mapping[str, KeyRecord]
    """What the stages on the way made, in the order of the graph."""
    measured: Mapping[str, tuple[KeyRecord, Mapping[str, Any]]]
    """The stages that compare what is published, with the content of their metrics."""
    loader: str | None = None
    """The class of transformers that loads the model, if one is published."""

    def of_kind(self, kind: str) -> list[tuple[StageNode, KeyRecord]]:
        """Return the stages of a kind on the way, with what they made."""
        return [
            (self.graph.nodes[name], record)
            for name, record in self.records.items()
            if record.kind == kind
        ]

    def sources(self) -> list[RowSource]:
        """Return the files and repositories from which rows come."""
        found: dict[RowSource, None] = {}
        for name, record in self.records.items():
            node = self.graph.nodes[name]
            for port, binding in node.bindings.items():
                if binding.type in ("records", "dataset", "documents") and not isinstance(
                    binding.source, StageOutput
                ):
                    shape = record.ingredients.get("inputs", {}).get(port, {})
                    found[_row_source(name, binding, str(shape.get("digest", "")))] = None
        return [*found]


def _row_source(stage: str, binding: Binding, digest: str) -> RowSource:
    source = binding.source
    if isinstance(source, HubRepo):
        commit = digest.rpartition("@")[2]
        part = ", ".join(filter(None, (source.subset, source.split)))
        return RowSource(stage, f"{source.repo} {part}".strip(), commit, source.repo)
    return RowSource(stage, shown_name(binding), digest)


def shown_name(binding: Binding) -> str:
    """Return the name of a file or folder without the path of someone's machine."""
    if binding.label.startswith("pkg://"):
        return binding.label
    if isinstance(binding.source, LocalPath):
        return binding.source.path.name
    if isinstance(binding.source, LocalGlob):
        return binding.source.pattern
    return binding.label


def without_places(value: Any, folder: Path) -> Any:
    """Return plain data with the spec's folder and the home folder as ``.`` and ``~``."""
    if isinstance(value, str):
        for place, short in ((str(folder), "."), (str(Path.home()), "~")):
            if len(place) > 1:
                value = value.replace(place, short)
        return value
    if isinstance(value, Mapping):
        return {key: without_places(item, folder) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(item, folder) for item in value]
    return value
