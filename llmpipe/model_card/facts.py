"""The facts of a model card: what is published, from which model, rows, settings and versions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmpipe.backends.huggingface.license import License
from llmpipe.contracts import ArtifactType
from llmpipe.graph.lineage import Lineage, lineage
from llmpipe.graph.model import Binding, Graph
from llmpipe.graph.sources import HubRepo, LocalGlob, LocalPath, StageOutput
from llmpipe.runner.records import Entry, KeyRecord, StoredOutput

_AT_HUB = re.compile(r"hub:(.+)@([^@]+)")
_WHOLE = r"(?:(?<![\w.~+@%-])|(?<=\s-\w)|(?<=^-\w)){}(?![\w~+@%-]|\.\w)"
"""A folder's path where it is one, also after an option of one letter: not a part of a name."""
_ROWS = ("records", "dataset", "documents")


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
    """Its name; empty if only its digest is known."""
    digest: str
    repo: str | None = None
    commit: str | None = None
    license: License | None = None
    unread: bool = False
    """Whether its license could not be read."""
    of: str = ""
    """The artifact of which nothing else is known but that it has a base model; else empty."""

    @property
    def shown(self) -> str:
        """Its name in messages."""
        return self.label or f"with the digest {self.digest[:16]}"


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
    """The resolved spec by which the files were made."""
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

    def trainings(self) -> dict[str, KeyRecord]:
        """Return what the stages made that trained the files, not those that made their rows."""
        trained = {name for way in self._ways().values() for name in way.trained}
        return {name: record for name, record in self.records.items() if name in trained}

    def unexplained(self) -> list[str]:
        """Return the artifacts of which no stage says what they were made from."""
        return [
            label for label, way in self._ways().items() if way.root is None and not way.trained
        ]

    def _ways(self) -> dict[str, Lineage]:
        return {p.label: lineage(self.graph, p.stage, p.output) for p in self.pieces}

    def sources(self) -> list[RowSource]:
        """Return the files and repositories from which rows come."""
        made = {out.digest for record in self.records.values() for out in record.outputs.values()}
        found: dict[RowSource, None] = {}
        for name, record in self.records.items():
            for port, shape in record.ingredients["inputs"].items():
                binding, digest = self.graph.nodes[name].bindings.get(port), str(shape["digest"])
                if binding is None or isinstance(binding.source, StageOutput):
                    if digest in made:
                        continue
                    binding = None
                if shape["type"] in _ROWS:
                    found[self._row_source(name, binding, digest)] = None
        return [*found]

    def _row_source(self, stage: str, binding: Binding | None, digest: str) -> RowSource:
        """Return a source by its record; ``binding`` is what the spec names now, if anything."""
        at_hub = repo_at(digest)
        if at_hub is None:
            known = binding is not None and is_named(self.graph, self.document, binding.label)
            return RowSource(stage, shown_name(binding) if binding and known else "", digest)
        repo, commit = at_hub
        parts: list[str] = []
        if binding and isinstance(binding.source, HubRepo) and binding.source.repo == repo:
            both = filter(None, (binding.source.subset, binding.source.split))
            parts = [part for part in both if is_named(self.graph, self.document, part)]
        return RowSource(stage, f"{repo} {', '.join(parts)}".strip(), commit, repo)


def repo_at(digest: str) -> tuple[str, str] | None:
    """Return the hub repository and the commit that the digest of an input stands for, if any."""
    found = _AT_HUB.fullmatch(digest)
    return (found[1], found[2]) if found else None


def is_named(graph: Graph, document: Mapping[str, Any], value: str) -> bool:
    """Return whether the spec by which files were made had a value that the spec has now.

    Args:
        graph: That of the spec as it is now.
        document: The resolved spec by which the files were made.
        value: A value of the spec as it is now.
    """
    return document == graph.spec.document or _has(document, value)


def _has(document: Any, value: str) -> bool:
    if isinstance(document, Mapping):
        return any(_has(item, value) for item in document.values())
    if isinstance(document, list | tuple):
        return any(_has(item, value) for item in document)
    return bool(document == value)


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
                value = re.sub(_WHOLE.format(re.escape(place)), short, value)
        return value
    if isinstance(value, Mapping):
        return {without_places(k, folder): without_places(v, folder) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(item, folder) for item in value]
    return value
