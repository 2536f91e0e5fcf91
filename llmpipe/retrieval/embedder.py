"""The embedder interface, and the identity by which two embedders are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import msgspec

from llmpipe.contracts import write_json
from llmpipe.errors import StageError
from llmpipe.retrieval.reading import Reading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

Engine = Literal["sentence-transformers", "onnx", "openai"]
Pooling = Literal["mean", "cls", "max", "lasttoken", "unknown"]

PACKAGES: Mapping[Engine, tuple[str, ...]] = {
    "sentence-transformers": ("sentence-transformers", "tokenizers"),
    "onnx": ("onnxruntime", "tokenizers"),
    "openai": (),
}
"""Packages of each engine whose versions affect the vectors and what cannot be read."""


class EmbedderIdentity(msgspec.Struct, frozen=True):
    """What two sets of vectors must have in common for their distances to be meaningful.

    Attributes:
        digest: digest of the model's content, ``hub:repo@commit`` for a hub model, or the model
            name for an endpoint.
        weights: digest of an ONNX file that replaces the model's own weights.
        max_tokens: the longest text that the model takes, special tokens included; 0 if only the
            endpoint knows.
        requested_dimension: the dimension that an endpoint was asked for; 0 for its default.
    """

    engine: Engine
    model: str
    digest: str
    dimension: int
    max_tokens: int
    pooling: Pooling
    normalize: bool
    passage_prefix: str = ""
    query_prefix: str = ""
    weights: str = ""
    base_url: str = ""
    requested_dimension: int = 0

    def differs_from(self, other: EmbedderIdentity) -> list[str]:
        """Return the names of the fields that differ, without the label ``model``."""
        fields = [name for name in self.__struct_fields__ if name != "model"]
        return [name for name in fields if getattr(self, name) != getattr(other, name)]


class Embedder(Protocol):
    """Turns texts into vectors. Rows of the result are in the order of the texts."""

    identity: EmbedderIdentity
    callers: int
    """How many threads may embed a question at once."""

    def embed_passages(
        self, texts: Sequence[str], progress: Callable[[int], None] = ...
    ) -> Vectors:
        """Return the vectors of passages: float32 of shape (texts, dimension).

        ``progress`` receives the number of texts done.

        Raises:
            StageError: a text is longer than the model takes, or the endpoint fails.
        """

    def embed_query(self, text: str) -> Vectors:
        """Return the vector of a question: float32 of shape (dimension,). Long ones are cut."""

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of several questions: float32 of shape (texts, dimension)."""


@runtime_checkable
class ReadingEmbedder(Protocol):
    """An embedder that can report how it reads a text, because it has a tokenizer."""

    def read(self, text: str) -> Reading:
        """Return how it reads a question, without the prefix that it adds."""


def write_identity(path: Path, identity: EmbedderIdentity) -> Path:
    """Write the identity of an embedder."""
    return write_json(path, msgspec.to_builtins(identity))


def read_identity(path: Path) -> EmbedderIdentity:
    """Read the identity of an embedder.

    Raises:
        StageError: the file does not contain one.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=EmbedderIdentity)
    except (OSError, msgspec.MsgspecError) as error:
        raise StageError(f"{path} does not say which embedder it belongs to: {error}") from None
