"""What every store is asked, ours and the peers': load, build, search, update."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from benchmarks.rag.contenders import replies
from benchmarks.rag.corpus import read_passages

K = 10


class Store(Protocol):
    """Documents that are searched by meaning. The embedder has been loaded."""

    def build(self, ids: list[str], texts: list[str]) -> None:
        """Embed and index documents."""

    def update(self, ids: list[str], texts: list[str], gone: list[str]) -> None:
        """Put documents in, in the place of those with their ids; take others out."""

    def search(self, question: str) -> list[str]:
        """Return the ids of the nearest ten, best first."""


def serve(make: Callable[[dict[str, Any]], Store]) -> None:
    """Answer requests about a store, which is made again for every build."""
    told = replies.told()
    stores: list[Store] = []

    def build(passages: str) -> dict[str, Any]:
        read = read_passages(Path(passages))
        stores[:] = [make(told)]
        begun = time.perf_counter()
        stores[0].build([p.id for p in read], [p.text for p in read])
        return {"seconds": time.perf_counter() - begun}

    def update(passages: str, gone: list[str]) -> dict[str, Any]:
        read = read_passages(Path(passages))
        begun = time.perf_counter()
        stores[0].update([p.id for p in read], [p.text for p in read], gone)
        return {"seconds": time.perf_counter() - begun}

    def search(questions: list[str]) -> dict[str, Any]:
        return replies.each_timed(stores[0].search, questions)

    replies.answer({"build": build, "update": update, "search": search})
