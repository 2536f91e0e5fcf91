"""The work of llmpipe's embed and index stages and of a search, with the embedder loaded.

An update embeds what is new and makes the index whole again, which is then opened and checked.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.rag.contenders import store_plan
from benchmarks.rag.contenders.llmpipe_parts import chunk_of, open_minilm
from benchmarks.rag.corpus import Passage
from llmpipe.backends.embedders.folder import load_tokenizer
from llmpipe.documents.model import Document, write_documents
from llmpipe.retrieval.chunks import write_chunks
from llmpipe.retrieval.embedder import write_identity
from llmpipe.retrieval.embedders import OpenedEmbedder
from llmpipe.retrieval.index import IndexSettings, build_index
from llmpipe.retrieval.search import Mode, Retriever
from llmpipe.retrieval.vector_memory import VectorMemory
from llmpipe.retrieval.vectors import Backlog, embed_backlog, write_vectors


class LlmpipeStore:
    """Embeddings and an index in a folder, as the stages make them."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._mode: Mode = told["mode"]
        self._model = Path(told["model"])
        self._embedder = _embedder(self._model, told["threads"])
        self._folder = Path(tempfile.mkdtemp(dir=told["folder"]))
        self._texts: dict[str, str] = {}

    def build(self, ids: list[str], texts: list[str]) -> None:
        """See `store_plan.Store`."""
        self.update(ids, texts, [])

    def update(self, ids: list[str], texts: list[str], gone: list[str]) -> None:
        """See `store_plan.Store`."""
        self._texts.update(zip(ids, texts, strict=True))
        for name in gone:
            del self._texts[name]
        embeddings = self._folder / "embeddings"
        for name in ("embeddings", "index"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        embeddings.mkdir()
        self._write(embeddings)
        build_index(embeddings, self._folder / "index", IndexSettings())
        self._retriever = Retriever.open(self._folder / "index", self._embedder)

    def search(self, question: str) -> list[str]:
        """See `store_plan.Store`."""
        hits = self._retriever.search(question, k=store_plan.K, mode=self._mode)
        return [hit.chunk.document for hit in hits]

    def _write(self, folder: Path) -> None:
        """Write what an embed stage makes."""
        passages = [Passage(name, text) for name, text in self._texts.items()]
        write_documents(
            folder / "documents.jsonl",
            (Document(p.id, p.id, "text/plain", "", p.text, ()) for p in passages),
        )
        write_chunks(folder / "chunks.jsonl", map(chunk_of, passages))
        with VectorMemory(self._folder / "memory.sqlite") as memory:
            backlog = Backlog.read(folder / "chunks.jsonl", "", memory)
            backlog.count_again(load_tokenizer(self._model), self._embedder.identity)
            embed_backlog(backlog, self._embedder, memory, lambda done: None)
            write_vectors(folder / "vectors.npy", backlog.keys, memory)
        write_identity(folder / "embedder.json", self._embedder.identity)


@cache
def _embedder(model: Path, threads: int) -> OpenedEmbedder:
    return open_minilm(model, threads)


if __name__ == "__main__":
    store_plan.serve(LlmpipeStore)
