"""Haystack's in-memory document store with its sentence-transformers embedders."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from haystack import Document
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy
from haystack.utils import ComponentDevice
from haystack_integrations.components.embedders.sentence_transformers import (
    SentenceTransformersDocumentEmbedder,
    SentenceTransformersTextEmbedder,
)

from benchmarks.rag.contenders import store_plan

Embedders = tuple[SentenceTransformersDocumentEmbedder, SentenceTransformersTextEmbedder]


class HaystackStore:
    """`InMemoryDocumentStore`, which compares a question with every document."""

    def __init__(self, told: dict[str, Any]) -> None:
        torch.set_num_threads(told["threads"])
        self._documents, self._questions = _embedders(told["model"])
        self._store = InMemoryDocumentStore(embedding_similarity_function="cosine")
        self._retriever = InMemoryEmbeddingRetriever(document_store=self._store, top_k=store_plan.K)

    def build(self, ids: list[str], texts: list[str]) -> None:
        """See `store_plan.Store`."""
        documents = [Document(id=name, content=text) for name, text in zip(ids, texts, strict=True)]
        embedded = self._documents.run(documents=documents)["documents"]
        self._store.write_documents(embedded, policy=DuplicatePolicy.OVERWRITE)

    def update(self, ids: list[str], texts: list[str], gone: list[str]) -> None:
        """See `store_plan.Store`."""
        self._store.delete_documents(gone)
        self.build(ids, texts)

    def search(self, question: str) -> list[str]:
        """See `store_plan.Store`."""
        vector = self._questions.run(text=question)["embedding"]
        found = self._retriever.run(query_embedding=vector)["documents"]
        return [document.id for document in found]


@cache
def _embedders(model: str) -> Embedders:
    options: dict[str, Any] = {
        "model": model,
        "device": ComponentDevice.from_str("cpu"),
        "normalize_embeddings": True,
        "progress_bar": False,
    }
    embedders = (
        SentenceTransformersDocumentEmbedder(batch_size=32, **options),
        SentenceTransformersTextEmbedder(**options),
    )
    for embedder in embedders:
        embedder.warm_up()
    return embedders


if __name__ == "__main__":
    store_plan.serve(HaystackStore)
