"""The frozen form of a spec after it was read, filled and validated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.contracts import StageConfig
from llmpipe.errors import Location

if TYPE_CHECKING:
    from llmpipe.contracts import Stage
    from llmpipe.spec.load import Node

VERSION = 1
"""The version of the spec language that this llmpipe reads."""


@dataclass(frozen=True, slots=True)
class StageSpec:
    """A stage as the spec declares it, or one point of its matrix.

    ``family`` is the id as written, ``point`` the values of the matrix's axes, and ``max_parallel``
    how many of the family may run at once. ``notes`` are about renamed fields.
    """

    id: str
    kind: str
    stage: type[Stage]
    config: StageConfig
    node: Node
    family: str
    point: Mapping[str, Any]
    max_parallel: int | None = None
    notes: tuple[str, ...] = ()

    def locate(self, field: tuple[str | int, ...], *, key: bool = False) -> Location:
        """Return the place of a field of this stage in the spec's text."""
        return self.node.locate(field, key=key)


@dataclass(frozen=True, slots=True)
class SpecFile:
    """A file that a spec was read from, and the SHA-256 of its bytes."""

    path: Path
    digest: str


@dataclass(frozen=True, slots=True)
class Spec:
    """A valid spec. ``document`` is its resolved form as plain data, with secrets by name."""

    path: Path
    name: str
    profiles: tuple[str, ...]
    params: Mapping[str, Any]
    stages: Mapping[str, StageSpec]
    document: Mapping[str, Any]
    root: Node
    files: Mapping[str, SpecFile] = field(default_factory=dict)
    """The files of the spec and of those that it extends, by their names in messages."""

    @property
    def folder(self) -> Path:
        """The folder in which commands run."""
        return self.path.parent

    def folder_of(self, where: Location) -> Path:
        """Return the folder that a relative path in this place is relative to."""
        file = self.files.get(where.file)
        return file.path.parent if file else self.folder
