"""Identify an embedder from its configuration, and load one from its identity.

`identify_folder` and `identify_endpoint` are cheap: they return an identity, which can be compared,
without loading the model. `open_embedder` loads a model from its identity (the ``embedder.json`` of
embeddings or of an index) and the files that it names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from llmpipe.backends.embedders.folder import count_tokens, load_tokenizer, read_folder
from llmpipe.errors import StageError
from llmpipe.retrieval.embedder import EmbedderIdentity
from llmpipe.retrieval.reading import Reader, Reading

if TYPE_CHECKING:
    from llmpipe.retrieval.embedder import Vectors


class _Backend(Protocol):
    callers: int

    def embed_passages(self, texts: Sequence[str], progress: Callable[[int], None]) -> Vectors: ...

    def embed_query(self, text: str) -> Vectors: ...

    def embed_queries(self, texts: Sequence[str]) -> Vectors: ...


def identify_folder(
    engine: Literal["sentence-transformers", "onnx"],
    folder: Path,
    digest: str,
    *,
    label: str,
    weights: str = "",
    normalize: bool = True,
    passage_prefix: str | None = None,
    query_prefix: str | None = None,
) -> EmbedderIdentity:
    """Return the identity of the embedder in a model folder.

    Args:
        engine: the engine that runs the model.
        folder: the model folder.
        digest: digest of the folder.
        label: what messages call the model.
        weights: digest of an ONNX file that replaces the folder's weights.
        normalize: whether to scale vectors to length 1; some models always do.
        passage_prefix: put before passages; None for the model's own prefix.
        query_prefix: put before questions; None for the model's own prefix.

    Raises:
        StageError: the folder does not contain an embedder.
    """
    found = read_folder(folder, label)
    return EmbedderIdentity(
        engine=engine,
        model=label,
        digest=digest,
        dimension=found.dimension,
        max_tokens=found.max_tokens,
        pooling=found.pooling,
        normalize=normalize or found.normalizes,
        passage_prefix=found.passage_prompt if passage_prefix is None else passage_prefix,
        query_prefix=found.query_prompt if query_prefix is None else query_prefix,
        weights=weights,
    )


def identify_endpoint(
    model: str,
    base_url: str,
    *,
    normalize: bool = True,
    dimension: int = 0,
    passage_prefix: str | None = None,
    query_prefix: str | None = None,
) -> EmbedderIdentity:
    """Return the identity of the embedder behind an endpoint.

    Without ``dimension``, the identity's dimension is 0 until the first vector arrives.
    """
    return EmbedderIdentity(
        engine="openai",
        model=model,
        digest=model,
        dimension=dimension,
        max_tokens=0,
        pooling="unknown",
        normalize=normalize,
        passage_prefix=passage_prefix or "",
        query_prefix=query_prefix or "",
        base_url=base_url,
        requested_dimension=dimension,
    )


class OpenedEmbedder:
    """A loaded embedder that checks its vectors. It implements `Embedder` and is closable."""

    def __init__(self, identity: EmbedderIdentity, backend: Any, tokenizer: Any = None) -> None:
        self.identity = identity
        self._backend: _Backend = backend
        self.callers = self._backend.callers
        self._closing: AbstractContextManager[Any] = backend
        self._tokenizer = tokenizer
        self._reader = None if tokenizer is None else Reader(tokenizer)

    def __enter__(self) -> OpenedEmbedder:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Release memory, threads and connections."""
        self._closing.__exit__(None, None, None)

    def embed_passages(
        self,
        texts: Sequence[str],
        progress: Callable[[int], None] = lambda done: None,
        *,
        counted: bool = False,
    ) -> Vectors:
        """Return the vectors of passages: float32 of shape (texts, dimension).

        ``progress`` receives the number of texts done. With ``counted``, the caller has already
        checked that no text is too long.

        Raises:
            StageError: a text is longer than the model takes, or the endpoint fails.
        """
        import numpy as np

        if not texts:
            return np.empty((0, self.identity.dimension), np.float32)
        if not counted:
            self._require_room(texts)
        return self._checked(self._backend.embed_passages(texts, progress))

    def embed_query(self, text: str) -> Vectors:
        """Return the vector of a question: float32 of shape (dimension,). Long ones are cut.

        Raises:
            StageError: the endpoint fails.
        """
        return self._checked(self._backend.embed_query(text))

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of several questions: float32 of shape (texts, dimension).

        Raises:
            StageError: the endpoint fails.
        """
        return self._checked(self._backend.embed_queries(texts))

    def read(self, text: str) -> Reading:
        """Return how a question is read; an endpoint is assumed to read all of it."""
        return Reading() if self._reader is None else self._reader.read([text])[0]

    def _require_room(self, texts: Sequence[str]) -> None:
        if self._tokenizer is None:
            return
        prefix, limit = self.identity.passage_prefix, self.identity.max_tokens
        counts = count_tokens(self._tokenizer, [prefix + text for text in texts])
        for text, count in zip(texts, counts, strict=True):
            if count > limit:
                raise StageError(
                    f"{text[:60]!r}… has {count} tokens; {self.identity.model} takes {limit}",
                    hint="lower `tokens` of the chunk stage",
                )

    def _checked(self, vectors: Vectors) -> Vectors:
        import numpy as np

        name, dimension = self.identity.model, self.identity.dimension
        if dimension and vectors.shape[-1] != dimension:
            raise StageError(
                f"{name} returned vectors of dimension {vectors.shape[-1]} instead of {dimension}"
            )
        if not np.isfinite(vectors).all():
            raise StageError(f"{name} returned vectors with values that are not finite numbers")
        return vectors


def open_embedder(
    identity: EmbedderIdentity,
    *,
    model: Path | None = None,
    weights: Path | None = None,
    threads: int = 1,
    batch_size: int = 32,
    api_key: str = "none",
) -> OpenedEmbedder:
    """Load the embedder that an identity names.

    Args:
        identity: the embedder to load.
        model: its folder; not needed for an endpoint.
        weights: its ONNX file, for the ``onnx`` engine.
        threads: CPU threads per call.
        batch_size: texts per batch.
        api_key: key for an endpoint.

    Raises:
        StageError: it cannot be loaded, or its files are not given.
        MissingDependencyError: a package that it needs is not installed.
    """
    prefixes: dict[str, Any] = {
        "normalize": identity.normalize,
        "passage_prefix": identity.passage_prefix,
        "query_prefix": identity.query_prefix,
    }
    if identity.engine == "openai":
        from llmpipe.backends.embedders.openai import EndpointEmbedder

        dimension = identity.requested_dimension
        endpoint = EndpointEmbedder(
            identity.base_url, identity.digest, api_key=api_key, batch_size=batch_size,
            dimension=dimension, **prefixes,
        )  # fmt: skip
        return OpenedEmbedder(identity, endpoint)
    if model is None or (identity.engine == "onnx" and weights is None):
        raise StageError(
            f"the files of the embedder {identity.model} are not given",
            hint="name the model that the vectors were made with",
        )
    folder = read_folder(model, identity.model)
    tokenizer = load_tokenizer(model, identity.model)
    common: dict[str, Any] = {"threads": threads, "label": identity.model, **prefixes}
    if weights is not None and identity.engine == "onnx":
        from llmpipe.backends.embedders.onnx import OnnxEmbedder

        return OpenedEmbedder(identity, OnnxEmbedder(folder, weights, **common), tokenizer)
    from llmpipe.backends.embedders.sentence_transformers import SentenceTransformersEmbedder

    loaded = SentenceTransformersEmbedder(folder, batch_size=batch_size, **common)
    return OpenedEmbedder(identity, loaded, tokenizer)
