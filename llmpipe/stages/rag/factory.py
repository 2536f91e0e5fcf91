"""Open all that a rag stage answers with: index, embedder, reranker and generator, as in use.

The stage's check does so, and ``llmpipe ask`` and ``llmpipe serve`` do with the threshold that the
check found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from llmpipe.backends.openai.journal import Journal
from llmpipe.contracts import Artifact
from llmpipe.retrieval.answer import Answerer, AnswerSettings
from llmpipe.retrieval.factory import open_embedder_of
from llmpipe.retrieval.generator import open_generator
from llmpipe.retrieval.rerank import CrossEncoder
from llmpipe.retrieval.search import Retriever
from llmpipe.retrieval.threshold import Threshold
from llmpipe.stages.rag.config import RagConfig

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
    """Return the threshold that a check found, from its ``check.json``."""
    found = msgspec.json.decode(check.read_bytes())["threshold"]
    if found["method"] == "labelled":  # as the stage's version 7 spelled it
        found["method"] = "labeled"
    return msgspec.convert(found, Threshold)


@contextmanager
def open_retriever(
    config: RagConfig, inputs: Mapping[str, Artifact], threads: int, reveal: Reveal
) -> Iterator[Retriever]:
    """Open the index with the embedder that it was made with.

    Raises:
        StageError: one of them cannot be opened, or the embedder is another one.
    """
    index, key = inputs["index"], config.embedder_api_key
    with open_embedder_of(
        index,
        inputs.get("embedder"),
        (config.mode,),
        threads=threads,
        api_key=reveal(key) if key else None,
    ) as embedder:
        yield Retriever.open(index.path, embedder, threads=threads)


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
    journal: Journal | None = None,
) -> Iterator[Answerer]:
    """Open what writes, and join it with what searches; see `open_generator` for ``journal``."""
    gguf = inputs.get("generator")
    with open_generator(
        config.generator, gguf, threads=threads, reveal=reveal, log=log, journal=journal
    ) as generator:
        model = inputs.get("reranker")
        reranker = CrossEncoder(model.path, threads=threads) if model else None
        yield Answerer(retriever, generator, _settings(config), threshold, reranker)


def _settings(config: RagConfig) -> AnswerSettings:
    return AnswerSettings(
        mode=config.mode,
        k=config.k,
        fetch=config.fetch,
        fusion=config.fusion,
        alpha=config.alpha,
        mmr=config.mmr,
        filters=config.plain_filters(),
        system=config.system,
    )
