"""The embeddings database of txtai, with its sentence-transformers method and FAISS."""

from __future__ import annotations

from typing import Any

import torch
from txtai import Embeddings

from benchmarks.rag.contenders import store_plan

MODELS: dict[str, Any] = {}
"""Where txtai keeps a model that it has loaded: all stores share it."""


class TxtaiStore:
    """`Embeddings` without stored contents, in memory."""

    def __init__(self, told: dict[str, Any]) -> None:
        torch.set_num_threads(told["threads"])
        self._embeddings = Embeddings(
            path=told["model"],
            method="sentence-transformers",
            gpu=False,
            encodebatch=32,
            models=MODELS,
        )

    def build(self, ids: list[str], texts: list[str]) -> None:
        """See `store_plan.Store`."""
        self._embeddings.index(zip(ids, texts, strict=True))

    def update(self, ids: list[str], texts: list[str], gone: list[str]) -> None:
        """See `store_plan.Store`."""
        self._embeddings.delete(gone)
        self._embeddings.upsert(zip(ids, texts, strict=True))

    def search(self, question: str) -> list[str]:
        """See `store_plan.Store`."""
        return [found for found, _ in self._embeddings.search(question, store_plan.K)]


if __name__ == "__main__":
    store_plan.serve(TxtaiStore)
