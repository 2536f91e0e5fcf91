"""The packages that embedding and searching import, as far as they are known before a run."""

from __future__ import annotations

import json
from collections.abc import Mapping

from llmpipe.needs import Given, Need, packages
from llmpipe.retrieval.embedder import Engine

EMBEDDING: Mapping[Engine, tuple[str, ...]] = {
    "sentence-transformers": (
        "numpy", "sentence-transformers", "tokenizers", "torch", "transformers",
    ),
    "onnx": ("numpy", "onnxruntime", "tokenizers"),
    "openai": ("numpy", "openai"),
}  # fmt: skip
WORDS = ("bm25s", "PyStemmer", "regex")
RERANKING = ("torch", "transformers")


def search_needs(indexes: Mapping[str, Given]) -> tuple[Need, ...]:
    """Return the packages needed to search the indexes, including the embedders of questions."""
    engines = [engine_of(given) for given in indexes.values() if given.type == "index"]
    names = [name for engine in engines if engine for name in EMBEDDING[engine]]
    return packages(*dict.fromkeys(("faiss-cpu", "numpy", *WORDS, *names)))


def engine_of(given: Given) -> Engine | None:
    """Return the engine that embedded an index, from its stage or its folder, or None."""
    step: Given | None = given
    while step is not None:
        if step.path is not None:
            return _engine_at(step)
        engine = getattr(step.config, "engine", None)
        if engine in EMBEDDING:
            return engine
        before = step.inputs.values()
        step = next((g for g in before if g.type in ("index", "embeddings")), None)
    return None


def _engine_at(given: Given) -> Engine | None:
    assert given.path is not None
    try:
        found = json.loads((given.path / "embedder.json").read_bytes())["engine"]
    except (OSError, ValueError, KeyError, TypeError):  # opening the index reports the problem
        return None
    return found if found in EMBEDDING else None
