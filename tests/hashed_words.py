"""A small embedder and collections for the tests of searching."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from llmpipe.documents.model import Document, Section, write_documents
from llmpipe.retrieval.chunks import Chunk, write_chunks
from llmpipe.retrieval.embedder import Embedder, EmbedderIdentity, write_identity

Vectors = NDArray[np.float32]
DIMENSION = 64


class HashedWords:
    """Stands for any model: every word has a direction of its own, a text is the sum of its words'.

    It follows the `Embedder` protocol, is the same everywhere, and takes no time.
    """

    callers = 8

    def __init__(self, **fields: Any) -> None:
        identity = EmbedderIdentity(
            engine="sentence-transformers",
            model="./hashed-words",
            digest="1",
            dimension=DIMENSION,
            max_tokens=256,
            pooling="mean",
            normalize=True,
        )
        self.identity = msgspec.structs.replace(identity, **fields)

    def embed_passages(
        self, texts: Sequence[str], progress: Callable[[int], None] = lambda done: None
    ) -> Vectors:
        return self.embed_queries(texts)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return np.stack([self.embed_query(text) for text in texts])

    def embed_query(self, text: str) -> Vectors:
        words = text.lower().split()[: self.identity.max_tokens]
        total = np.sum([_direction(word) for word in words], axis=0)
        unit: Vectors = (total / np.linalg.norm(total)).astype(np.float32)
        return unit


def _direction(word: str) -> Vectors:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
    drawn: Vectors = np.random.default_rng(seed).standard_normal(DIMENSION, dtype=np.float32)
    return drawn


def document(name: str, text: str, **metadata: Any) -> Document:
    """A document of one section, named after it."""
    section = Section((f"About {name}",), 0, len(text))
    return Document(name, name, "text/plain", "0", text, (section,), metadata=metadata)


def chunk_of(whole: Document, **fields: Any) -> Chunk:
    """A document as one chunk."""
    chunk = Chunk(
        id=f"c-{whole.id}",
        document=whole.id,
        start=0,
        end=len(whole.text),
        text=whole.text,
        tokens=len(whole.text.split()),
        section=whole.sections[0].path,
        metadata=whole.metadata,
    )
    return msgspec.structs.replace(chunk, **fields)


def write_embeddings(
    folder: Path,
    documents: Sequence[Document],
    chunks: Sequence[Chunk] | None = None,
    embedder: Embedder | None = None,
) -> Path:
    """Write an embeddings folder as the embed stage does; without ``chunks``, one a document."""
    embedder = embedder or HashedWords()
    chunks = [chunk_of(whole) for whole in documents] if chunks is None else chunks
    folder.mkdir(parents=True)
    vectors = embedder.embed_passages([chunk.embedded_text() for chunk in chunks])
    np.save(folder / "vectors.npy", vectors)
    write_chunks(folder / "chunks.jsonl", chunks)
    write_documents(folder / "documents.jsonl", documents)
    write_identity(folder / "embedder.json", embedder.identity)
    return folder


def texts(vocabulary: Mapping[str, str]) -> list[Document]:
    """Documents of given texts."""
    return [document(name, text) for name, text in vocabulary.items()]
