"""The inputs and outputs of a stage, as its config determines them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from llmpipe.contracts.artifacts import ArtifactType

FieldPath = tuple[str | int, ...]
"""The place of a value inside a stage's config: ``("sources", 0, "data")``."""


@dataclass(frozen=True, slots=True)
class Input:
    """A reference in a stage's config.

    ``field`` is its path inside the config (for messages), ``value`` its text, ``accepts`` the
    artifact types that fit. If only ``model`` fits and the reference is to an adapter or a GGUF,
    the compiler inserts a merge or an import. ``refuse`` maps a type to the message that forbids
    this, where the choice would change the result.
    """

    field: FieldPath
    value: str
    accepts: tuple[ArtifactType, ...]
    refuse: Mapping[str, str] = dataclasses.field(default_factory=dict)
    base_allowed: bool = False
    """Whether the reserved word ``base`` is allowed here."""
    glob: bool = False
    """Whether a pattern of file names or any folder is allowed here; then a hub id is not."""
    gather: bool = False
    """Whether it takes a stage at all points of its sweep, as ports ``name[point]``."""
    metric: str | None = None
    """The metric to look for, if the reference is to metrics: its keys joined by dots."""


@dataclass(frozen=True, slots=True)
class Output:
    """An artifact that a stage makes.

    ``origin`` names the input that the output descends from. ``trained`` means that it was changed
    by training (a fine-tuned model), not by conversion (a merge, an export).
    """

    type: ArtifactType
    origin: str | None = None
    trained: bool = False
    like: str | None = None
    """The input whose artifact and type it has; ``type`` is then a placeholder."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The typed inputs and outputs of a stage.

    ``default`` is the output that a bare stage id means.
    """

    inputs: Mapping[str, Input]
    outputs: Mapping[str, Output]
    default: str | None = None
