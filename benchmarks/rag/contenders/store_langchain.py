"""LangChain's FAISS store with its Hugging Face embeddings."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from langchain_community.vectorstores import FAISS
from langchain_huggingface import HuggingFaceEmbeddings

from benchmarks.rag.contenders import store_plan


class LangChainStore:
    """`FAISS.from_texts`, in memory."""

    def __init__(self, told: dict[str, Any]) -> None:
        torch.set_num_threads(told["threads"])
        self._embeddings = _embeddings(told["model"])

    def build(self, ids: list[str], texts: list[str]) -> None:
        """See `store_plan.Store`."""
        self._store = FAISS.from_texts(texts, self._embeddings, ids=ids)

    def update(self, ids: list[str], texts: list[str], gone: list[str]) -> None:
        """See `store_plan.Store`. It refuses to add an id that it has."""
        known = {document.id for document in self._store.get_by_ids(ids)}
        self._store.delete([*gone, *known])
        self._store.add_texts(texts, ids=ids)

    def search(self, question: str) -> list[str]:
        """See `store_plan.Store`."""
        found = self._store.similarity_search(question, k=store_plan.K)
        return [str(document.id) for document in found]


@cache
def _embeddings(model: str) -> HuggingFaceEmbeddings:
    return HuggingFaceEmbeddings(
        model_name=model,
        model_kwargs={"device": "cpu"},
        encode_kwargs={"batch_size": 32, "normalize_embeddings": True},
    )


if __name__ == "__main__":
    store_plan.serve(LangChainStore)
