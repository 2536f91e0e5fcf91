"""Open the embedder that an index was built with, to embed questions in the same way."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llmpipe.contracts import Artifact
from llmpipe.errors import StageError
from llmpipe.retrieval.embedder import (
    Embedder,
    EmbedderIdentity,
    ReadingEmbedder,
    read_identity,
)
from llmpipe.retrieval.embedders import open_embedder
from llmpipe.retrieval.reading import Reading
from llmpipe.retrieval.search import Mode

if TYPE_CHECKING:
    from llmpipe.retrieval.embedder import Vectors


@contextmanager
def open_embedder_of(
    index: Artifact,
    model: Artifact | None,
    modes: Collection[Mode],
    *,
    threads: int,
    api_key: str | None,
) -> Iterator[Embedder]:
    """Open the embedder of an index; if all modes search by words only, none is loaded.

    Args:
        index: the index to search.
        model: the embedder's model; needed if the index does not refer to one.
        modes: the modes in which the index will be searched.
        threads: CPU threads per call.
        api_key: key for an endpoint.

    Raises:
        StageError: the model is not given, is a different one, or cannot be loaded.
    """
    identity = read_identity(index.path / "embedder.json")
    if not _embeds(modes):
        yield KnownQuestions(identity, {})
        return
    if index.base and (model is None or index.base.digest == identity.digest):
        model = index.base
    weights = index.path / "model.onnx"
    if identity.engine != "openai":
        _require_model(index, identity.model, identity.digest, model)
    with open_embedder(
        identity,
        model=model.path if model else None,
        weights=weights if weights.exists() else None,
        threads=threads,
        api_key=api_key or "none",
    ) as embedder:
        yield embedder


def embed_questions(
    index: Artifact,
    model: Artifact | None,
    modes: Collection[Mode],
    questions: Sequence[str],
    *,
    threads: int,
    api_key: str | None,
) -> KnownQuestions:
    """Embed all questions at once with the embedder of an index; see `open_embedder_of`.

    Raises:
        StageError: the model is not given, is a different one, or cannot be loaded.
    """
    needed = questions if _embeds(modes) else ()
    with open_embedder_of(index, model, modes, threads=threads, api_key=api_key) as embedder:
        vectors = embedder.embed_queries(needed)
        known = dict(zip(needed, vectors, strict=True))
        readings = (
            {question: embedder.read(question) for question in needed}
            if isinstance(embedder, ReadingEmbedder)
            else {}
        )
        return KnownQuestions(embedder.identity, known, readings)


class KnownQuestions:
    """Replaces an embedder once all questions are embedded, so that its model can be unloaded.

    It is empty if the index is searched by words only.
    """

    callers = 1

    def __init__(
        self,
        identity: EmbedderIdentity,
        vectors: Mapping[str, Vectors],
        readings: Mapping[str, Reading] | None = None,
    ) -> None:
        self.identity = identity
        self._vectors = vectors
        self._readings = readings or {}

    def read(self, text: str) -> Reading:
        return self._readings.get(text, Reading())

    def embed_passages(self, texts: Any, progress: Any = None) -> Any:
        raise AssertionError("passages are not embedded while an index is searched")

    def embed_query(self, text: str) -> Vectors:
        return self._vectors[text]

    def embed_queries(self, texts: Sequence[str]) -> Any:
        return [self._vectors[text] for text in texts]


def _embeds(modes: Collection[Mode]) -> bool:
    return set(modes) != {"bm25"}


def _require_model(index: Artifact, name: str, digest: str, model: Artifact | None) -> None:
    if model is None:
        raise StageError(
            f"{index.label} does not say where its embedder is, {name}",
            hint="name the model in `embedder`",
        )
    if model.digest != digest:
        raise StageError(
            f"{index.label} was embedded with {name}, and {model.label} is another model",
            hint="name that model, or embed the documents with this one",
        )
