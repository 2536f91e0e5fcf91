"""Open all that a rag stage answers with: index, embedder, reranker and generator, as in use.

The stage's check does so, and ``llmpipe ask`` and ``llmpipe serve`` do with the threshold that the
check found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from llmpipe.contracts import Artifact
from llmpipe.errors import StageError
from llmpipe.retrieval.answer import Answerer, AnswerSettings
from llmpipe.retrieval.embedder import Embedder, EmbedderIdentity, read_identity
from llmpipe.retrieval.embedders import open_embedder
from llmpipe.retrieval.generator import open_generator
from llmpipe.retrieval.rerank import CrossEncoder
from llmpipe.retrieval.search import Retriever
from llmpipe.retrieval.threshold import Threshold
from llmpipe.stages.rag_config import RagConfig

Reveal = Callable[[str], str]


@contextmanager
def open_answerer(
    config: RagConfig,
    inputs: Mapping[str, Artifact],
    threshold: Threshold,
    *,
    threads: int,
    reveal: Reveal,
    log: Path | None = None,
) -> Iterator[Answerer]:
    """Open all that answering takes: index, embedder, reranker and generator.

    ``inputs`` are the stage's, ``threshold`` is the one that its check found, ``log`` a file for
    llama.cpp's own log.

    Raises:
        StageError: a part cannot be opened or does not fit the others.
    """
    with open_retriever(config, inputs, threads, reveal) as retriever, answering(
        config, inputs, retriever, threshold, threads=threads, reveal=reveal, log=log
    ) as answerer:  # fmt: skip
        yield answerer


def read_threshold(check: Path) -> Threshold:
    """Give the threshold that a check found, from its ``check.json``."""
    return msgspec.convert(msgspec.json.decode(check.read_bytes())["threshold"], Threshold)


@contextmanager
def open_retriever(
    config: RagConfig, inputs: Mapping[str, Artifact], threads: int, reveal: Reveal
) -> Iterator[Retriever]:
    """Open the index with the embedder that it was made with.

    Raises:
        StageError: one of them cannot be opened, or the embedder is another one.
    """
    with _open_embedder(config, inputs, threads, reveal) as embedder:
        yield Retriever.open(inputs["index"].path, embedder, threads=threads)


@contextmanager
def answering(
    config: RagConfig,
    inputs: Mapping[str, Artifact],
    retriever: Retriever,
    threshold: Threshold,
    *,
    threads: int,
    reveal: Reveal,
    log: Path | None,
) -> Iterator[Answerer]:
    """Open what writes, and join it with what searches."""
    gguf = inputs.get("generator")
    with open_generator(
        config.generator, gguf, threads=threads, reveal=reveal, log=log
    ) as generator:
        model = inputs.get("reranker")
        reranker = CrossEncoder(model.path, threads=threads) if model else None
        yield Answerer(retriever, generator, _settings(config), threshold, reranker)


@contextmanager
def _open_embedder(
    config: RagConfig, inputs: Mapping[str, Artifact], threads: int, reveal: Reveal
) -> Iterator[Embedder]:
    index = inputs["index"]
    identity = read_identity(index.path / "embedder.json")
    if config.mode == "bm25":
        yield _NoEmbedder(identity)
        return
    model, weights = inputs.get("embedder") or index.base, index.path / "model.onnx"
    if identity.engine != "openai":
        _require_model(index, identity.model, identity.digest, model)
    with open_embedder(
        identity,
        model=model.path if model else None,
        weights=weights if weights.exists() else None,
        threads=threads,
        api_key=reveal(config.embedder_api_key) if config.embedder_api_key else "none",
    ) as embedder:
        yield embedder


class _NoEmbedder:
    """Stands in for the embedder of an index of which only the words are searched."""

    def __init__(self, identity: EmbedderIdentity) -> None:
        self.identity = identity

    def embed_passages(self, texts: Any, progress: Any = None) -> Any:
        raise AssertionError("a search by words embeds nothing")

    def embed_query(self, text: str) -> Any:
        raise AssertionError("a search by words embeds nothing")


def _require_model(index: Artifact, name: str, digest: str, model: Artifact | None) -> None:
    if model is None:
        raise StageError(
            f"{index.label} does not say where its embedder is, {name}",
            hint="name the model in `embedder`",
        )
    if model.digest != digest:
        raise StageError(
            f"{index.label} was embedded with {name}, and {model.label} is another model",
            hint="name the very model, or embed the documents with this one",
        )


def _settings(config: RagConfig) -> AnswerSettings:
    return AnswerSettings(
        mode=config.mode,
        k=config.k,
        fetch=config.fetch,
        mmr=config.mmr,
        filters=config.plain_filters(),
        system=config.system,
    )
