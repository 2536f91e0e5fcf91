"""Build and search an index by FAISS itself, in memory, with the parameters that llmpipe takes."""

from __future__ import annotations

import time
from typing import Any

import faiss
import numpy as np

from benchmarks.rag.contenders import replies

EF_CONSTRUCTION, EF_SEARCH = 200, 64


def main() -> None:
    """Answer requests."""
    told = replies.told()
    vectors, queries = np.load(told["vectors"]), np.load(told["queries"])
    built: dict[str, Any] = {}

    def make(factory: str) -> dict[str, Any]:
        faiss.omp_set_num_threads(1)  # as llmpipe builds, for the same graph every time
        begun = time.perf_counter()
        index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        if factory.startswith("HNSW"):
            index.hnsw.efConstruction, index.hnsw.efSearch = EF_CONSTRUCTION, EF_SEARCH
        index.add(vectors)
        built[factory] = index
        return {"seconds": time.perf_counter() - begun}

    def search(factory: str) -> dict[str, Any]:
        faiss.omp_set_num_threads(told["threads"])
        index = built[factory]
        begun = time.perf_counter()
        found = [index.search(query[None, :], 10)[1][0].tolist() for query in queries]
        return {"seconds": (time.perf_counter() - begun) / len(queries), "found": found}

    replies.answer({"build": make, "search": search})


if __name__ == "__main__":
    main()
