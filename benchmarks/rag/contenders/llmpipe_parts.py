"""What the contenders of llmpipe share."""

from __future__ import annotations

from pathlib import Path

from benchmarks.rag.corpus import Passage
from llmpipe.retrieval.chunks import Chunk
from llmpipe.retrieval.embedder import read_identity
from llmpipe.retrieval.embedders import OpenedEmbedder, identify_folder, open_embedder


def open_minilm(model: Path, threads: int) -> OpenedEmbedder:
    """Load the embedder in a folder."""
    identity = identify_folder("sentence-transformers", model, "minilm", label="minilm")
    return open_embedder(identity, model=model, threads=threads)


def open_embedder_of(index: Path, model: Path, threads: int) -> OpenedEmbedder:
    """Load the embedder that an index was made with."""
    identity, weights = read_identity(index / "embedder.json"), index / "model.onnx"
    carried = weights if weights.exists() else None
    return open_embedder(identity, model=model, weights=carried, threads=threads)


def chunk_of(passage: Passage) -> Chunk:
    """Return a passage as a document's only chunk."""
    return Chunk(passage.id, passage.id, 0, len(passage.text), passage.text, 0)
