"""Embed texts with a sentence-transformers model folder, on the CPU or the first GPU.

The folder is loaded from disk only: nothing from the network, no code of the model, no pickled
weights. It computes in float32, so that vectors of different machines can be compared. The model's
own modules turn tokens into a vector.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llmpipe.backends import device
from llmpipe.backends.embedders.folder import EmbeddingFolder
from llmpipe.backends.suppress_logs import suppress_logs
from llmpipe.errors import MissingDependencyError, StageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BATCHES_PER_CALL = 4
"""The number of batches between two reports of progress."""


class SentenceTransformersEmbedder:
    """A loaded model. ``threads`` bounds the CPU threads of the whole process.

    Raises:
        StageError: The folder cannot be loaded as an embedder.
        MissingDependencyError: sentence-transformers is not installed.
    """

    callers = 1  # its tokenizer takes one at a time

    def __init__(
        self,
        folder: EmbeddingFolder,
        *,
        threads: int,
        batch_size: int = 32,
        normalize: bool = True,
        passage_prefix: str = "",
        query_prefix: str = "",
        label: str = "",
    ) -> None:
        self.batch_size = batch_size
        self.normalize = normalize
        self.passage_prefix = passage_prefix
        self.query_prefix = query_prefix
        self._model = _load(folder, threads, label or folder.path.name)

    def __enter__(self) -> SentenceTransformersEmbedder:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._model.to("meta")  # frees the weights even if the object is still referenced

    def embed_passages(
        self, texts: Sequence[str], progress: Callable[[int], None] = lambda done: None
    ) -> NDArray[np.float32]:
        """Return a vector for every text; texts of similar length are computed together.

        The model would cut a text that is too long, so the caller must pass shorter ones.
        """
        import numpy as np

        order = sorted(range(len(texts)), key=lambda i: (-len(texts[i]), i))
        vectors: NDArray[np.float32] | None = None
        step = self.batch_size * BATCHES_PER_CALL
        for begin in range(0, len(order), step):
            places = order[begin : begin + step]
            found = self._model.encode_document(
                [texts[i] for i in places], prompt=self.passage_prefix, **self._options()
            )
            if vectors is None:
                vectors = np.empty((len(texts), found.shape[1]), np.float32)
            vectors[places] = found
            progress(begin + len(places))
        return np.empty((0, 0), np.float32) if vectors is None else vectors

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return the vector of a question; one that is too long for the model is cut."""
        vector: NDArray[np.float32] = self.embed_queries([text])[0]
        return vector

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of several questions, computed in batches."""
        import numpy as np

        found = self._model.encode_query(list(texts), prompt=self.query_prefix, **self._options())
        return np.asarray(found, np.float32)

    def _options(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "normalize_embeddings": self.normalize,
            "show_progress_bar": False,
        }


def _load(folder: EmbeddingFolder, threads: int, label: str) -> Any:
    _refuse_pickles(folder, label)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        with suppress_logs():
            import torch
            from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingDependencyError(
            f"embedding needs sentence-transformers: {error}", hint="pip install 'llmpipe[rag]'"
        ) from None
    torch.set_num_threads(threads)
    gpu = device.detect().kind == "cuda" and torch.cuda.is_available()
    try:
        with suppress_logs():
            model = SentenceTransformer(
                str(folder.path),
                device="cuda" if gpu else "cpu",
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True, "dtype": "float32"},
            )
        model.default_prompt_name = None  # we add the prompts ourselves
        model.max_seq_length = folder.max_tokens
    except Exception as error:  # whatever the modules of a model raise
        raise StageError(
            f"{label}: cannot be loaded as an embedder: {_first_line(error)}",
            hint="a model folder of sentence-transformers needs config.json, safetensors weights "
            "and a tokenizer",
        ) from None
    return model.eval()


def _refuse_pickles(folder: EmbeddingFolder, label: str) -> None:
    for pickled in sorted(folder.path.rglob("pytorch_model*.bin")):
        if not list(pickled.parent.glob("*.safetensors")):
            raise StageError(
                f"{label}: {pickled.relative_to(folder.path)} contains pickled weights",
                hint="save the model again with safetensors: model.save_pretrained(…)",
            )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
