"""Build an index as the index stage does, open its file as a search does, and search."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rag.contenders import replies
from llmpipe.backends.faiss import VectorIndex, build, open_index


def main() -> None:
    """Answer requests."""
    told = replies.told()
    vectors, queries = np.load(told["vectors"]), np.load(told["queries"])
    built: dict[str, VectorIndex] = {}

    def make(factory: str) -> dict[str, Any]:
        begun = time.perf_counter()
        index = build(vectors, factory)
        seconds = time.perf_counter() - begun
        path = Path(told["folder"]) / f"{factory}.faiss"
        index.save(path)
        built[factory] = open_index(path, told["threads"])
        return {"seconds": seconds, "bytes": path.stat().st_size}

    def search(factory: str) -> dict[str, Any]:
        index = built[factory]
        begun = time.perf_counter()
        found = [index.search(query, 10)[0].tolist() for query in queries]
        return {"seconds": (time.perf_counter() - begun) / len(queries), "found": found}

    replies.answer({"build": make, "search": search})


if __name__ == "__main__":
    main()
