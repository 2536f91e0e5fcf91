"""What an embedder is: who it is, to be compared, and what it does."""

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
"""The distributions that shape the vectors of an engine, and tell what it cannot read."""


class EmbedderIdentity(msgspec.Struct, frozen=True):
    """All that two sets of vectors must have in common for their distances to mean anything.

    ``digest`` is that of the model's content (``hub:repo@commit`` for one from the hub, the name
    for an endpoint), ``weights`` that of an ONNX file used in the place of the model's own.
    ``max_tokens`` is the longest text that the model takes, special tokens included; 0 where only
    an endpoint knows. ``requested_dimension`` is what an endpoint was asked to shorten its vectors
    to; 0 where it was asked for nothing.
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
        """Name the fields in which the two differ; the label ``model`` is none of them."""
        fields = [name for name in self.__struct_fields__ if name != "model"]
        return [name for name in fields if getattr(self, name) != getattr(other, name)]


class Embedder(Protocol):
    """Turns texts into vectors. The rows of an answer follow the order of the texts."""

    identity: EmbedderIdentity
    callers: int
    """How many threads may embed a question at the same time."""

    def embed_passages(
        self, texts: Sequence[str], progress: Callable[[int], None] = ...
    ) -> Vectors:
        """Embed what is searched; float32 of shape (texts, dimension).

        ``progress`` is told how many texts are done.

        Raises:
            StageError: a text is longer than the model takes, or an endpoint fails.
        """

    def embed_query(self, text: str) -> Vectors:
        """Embed a question; float32 of shape (dimension,). A longer one than fits is cut."""

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Embed several questions at once; float32 of shape (texts, dimension)."""


@runtime_checkable
class ReadingEmbedder(Protocol):
    """An embedder that can tell how it reads a text, as one with a tokenizer at hand can."""

    def read(self, text: str) -> Reading:
        """Return how it reads a question, less what it puts before it."""


def write_identity(path: Path, identity: EmbedderIdentity) -> Path:
    """Write who the embedder was."""
    return write_json(path, msgspec.to_builtins(identity))


def read_identity(path: Path) -> EmbedderIdentity:
    """Read who the embedder was.

    Raises:
        StageError: the file does not say.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=EmbedderIdentity)
    except (OSError, msgspec.MsgspecError) as error:
        raise StageError(f"{path} does not say which embedder it is of: {error}") from None
