"""What a stage reads and makes, as its config says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from llmpipe.contracts.artifacts import ArtifactType

FieldPath = tuple[str | int, ...]
"""Where a value stands inside a stage's config: ``("sources", 0, "data")``."""


@dataclass(frozen=True, slots=True)
class Input:
    """One reference that a stage's config holds.

    ``field`` is its path inside the stage's config (for messages), ``value`` the text as written,
    ``accepts`` the artifact types that fit as they are. When only ``model`` fits and an adapter or
    a GGUF is given, the compiler derives the merge or the import; ``refuse`` maps a type to the
    message that forbids this where the choice would change the science.
    """

    field: FieldPath
    value: str
    accepts: tuple[ArtifactType, ...]
    refuse: Mapping[str, str] = dataclasses.field(default_factory=dict)
    base_allowed: bool = False
    """Whether the reserved word ``base`` may stand here."""
    glob: bool = False
    """Whether a path here may be a pattern of file names or any folder; a hub id may not."""
    gather: bool = False
    """Whether it takes a stage at every point of its sweep at once, as ports ``name[point]``."""
    metric: str | None = None
    """The metric to look for, if the reference is to metrics: its keys joined by dots."""


@dataclass(frozen=True, slots=True)
class Output:
    """One thing that a stage makes.

    ``origin`` names the input that the output descends from; ``trained`` says that it learned
    something on the way (a fine-tuned model) rather than being converted (a merge, an export).
    """

    type: ArtifactType
    origin: str | None = None
    trained: bool = False
    like: str | None = None
    """The input whose artifact it is, and whose type it takes; ``type`` is then a placeholder."""


@dataclass(frozen=True, slots=True)
class Ports:
    """A stage's typed inputs and outputs. ``default`` is the output that a bare stage id means."""

    inputs: Mapping[str, Input]
    outputs: Mapping[str, Output]
    default: str | None = None
