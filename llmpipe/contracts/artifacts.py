"""The artifacts that stages pass to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ArtifactType = Literal[
    "records",  # rows of any shape: JSONL, JSON or CSV, one file
    "dataset",  # rows ready to train on: one JSONL file in one of the formats of `llmpipe.formats`
    "model",  # a Hugging Face folder: config, safetensors, tokenizer
    "adapter",  # a PEFT folder: adapter_config.json, adapter_model.safetensors
    "gguf",  # one GGUF file
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
