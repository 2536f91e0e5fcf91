"""The artifacts that stages pass to each other, and the ports that they pass through."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ArtifactType = Literal[
    "records",  # rows of any shape: JSONL, JSON or CSV, one file
    "dataset",  # rows ready to train on: one JSONL file in one of the formats of `llmpipe.formats`
    "model",  # a Hugging Face folder: config, safetensors, tokenizer
    "adapter",  # a PEFT folder: adapter_config.json, adapter_model.safetensors
    "gguf",  # one GGUF file
    "gguf_adapter",  # a LoRA adapter as one GGUF file, for the GGUF of its base model
    "documents",  # one JSONL file of texts with their sections and pages
    "chunks",  # a folder: the chunks, and their documents
    "embeddings",  # a folder: a vector for each chunk, and the chunks
    "index",  # a folder: a searchable index, and the documents that it finds
    "metrics",  # one JSON file of metrics
    "file",  # any file or folder that only its own stage understands
]


@dataclass(frozen=True, slots=True)
class Artifact:
    """An input as the worker sees it: a readable path.

    An adapter comes with its ``base`` model; embeddings and an index come with their embedder's. If
    the spec names a folder or a pattern of file names, ``path`` is the folder below which the files
    that match ``pattern`` are meant (`llmpipe.patterns.matching_files`).
    """

    path: Path
    type: ArtifactType
    digest: str
    label: str
    """Its name in messages: ``dataset.train`` or ``./data/a.jsonl``."""
    base: Artifact | None = None
    pattern: str | None = None
    hub: str | None = None
    """The hub id of a model that only the machine of a `Target` will download:
    ``org/name@revision``. ``path`` is then not a folder."""


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
    allow_held_out: bool = True
    """Whether rows that a stage holds out are allowed here, directly or passed on by others."""
    compared: bool = False
    """Whether the stage only compares its other rows with these, so that no output holds them."""
    gather: bool = False
    """Whether it takes a stage at all points of its sweep, as ports ``name[point]``."""
    adapts: str | None = None
    """The port of the model that this adapter is put on. Both must come from one model, as far as
    the graph knows it."""
    metrics: Mapping[str, FieldPath] = dataclasses.field(default_factory=dict)
    """The metrics to look for, if the reference is to metrics: their keys joined by dots, and the
    place of each in the config."""
    split: str | None = None
    """The split that is meant, if the reference is to a hub data set."""
    subset: str | None = None
    """The subset (configuration) that is meant, if the reference is to a hub data set."""


@dataclass(frozen=True, slots=True)
class Output:
    """An artifact that a stage makes.

    ``origin`` names the input that the output descends from. ``trained`` means that it was changed
    by training (a fine-tuned model), not by conversion (a merge, an export).
    """

    type: ArtifactType
    origin: str | None = None
    trained: bool = False
    held_out: bool = False
    """Whether it contains rows that are held out, to measure models on."""
    like: str | None = None
    """The input whose artifact and type it has; ``type`` is then a placeholder."""
    optional: bool = False
    """Whether what a stage made without it is up to date until another stage takes it.

    It is for outputs that come to a kind later. ``run`` makes it all the same.
    """


@dataclass(frozen=True, slots=True)
class Ports:
    """The typed inputs and outputs of a stage.

    ``default`` is the output that a bare stage id means.
    """

    inputs: Mapping[str, Input]
    outputs: Mapping[str, Output]
    default: str | None = None
