"""Embed texts with an ONNX file, such as an int8 one, without torch. It loads in half a second.

The file replaces the weights of a model folder, whose tokenizer, pooling and normalization are
used. A file that quantizes at run time computes the scale over the whole batch, so the vector of a
text would depend on the other texts. Each text is therefore computed alone, in one thread, with
several threads in parallel. On a CPU this is as fast as batches (measured: 0.09 s a passage alone,
0.09 to 0.10 s in batches of 2 to 8).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.backends.embedders.folder import EmbeddingFolder, load_tokenizer
from llmpipe.errors import MissingDependencyError, StageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""The inputs of an encoder that a tokenizer can fill."""


class OnnxEmbedder:
    """An encoder in one ONNX file. Use it as a context manager.

    Raises:
        StageError: The file cannot be loaded, or does not fit the model folder.
        MissingDependencyError: onnxruntime is not installed.
    """

    def __init__(
        self,
        folder: EmbeddingFolder,
        weights: Path,
        *,
        threads: int,
        normalize: bool = True,
        passage_prefix: str = "",
        query_prefix: str = "",
        label: str = "",
    ) -> None:
        self.folder = folder
        self.normalize = normalize
        self.passage_prefix = passage_prefix
        self.query_prefix = query_prefix
        self.label = label or weights.name
        if not folder.plain or folder.pooling == "unknown":
            raise StageError(
                f"{folder.path.name} does more than pool and normalize the output of the ONNX file",
                hint="use the engine sentence-transformers",
            )
        self._tokenizer = load_tokenizer(folder.path)
        self._tokenizer.enable_truncation(folder.max_tokens)
        self._session = _open(weights, self.label)
        self._inputs, self._output = _check(self._session, folder, self.label)
        self._threads = ThreadPoolExecutor(threads)
        self.callers = threads

    def __enter__(self) -> OnnxEmbedder:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def embed_passages(
        self, texts: Sequence[str], progress: Callable[[int], None] = lambda done: None
    ) -> NDArray[np.float32]:
        """Return a vector for every text.

        The model would cut a text that is too long, so the caller must pass shorter ones.
        """
        return self._vectors([self.passage_prefix + text for text in texts], progress)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return the vector of a question; one that is too long for the model is cut."""
        return self._vector(self.query_prefix + text)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of several questions, as many in parallel as there are threads."""
        return self._vectors([self.query_prefix + text for text in texts], lambda done: None)

    def _vectors(
        self, texts: Sequence[str], progress: Callable[[int], None]
    ) -> NDArray[np.float32]:
        import numpy as np

        vectors = np.empty((len(texts), self.folder.dimension), np.float32)
        for done, vector in enumerate(self._threads.map(self._vector, texts)):
            vectors[done] = vector
            progress(done + 1)
        return vectors

    def _vector(self, text: str) -> NDArray[np.float32]:
        import numpy as np

        encoding = self._tokenizer.encode(text)
        columns = (encoding.ids, encoding.attention_mask, encoding.type_ids)
        feed = {
            name: np.array([column], np.int64)
            for name, column in zip(INPUTS, columns, strict=True)
            if name in self._inputs
        }
        (found,) = self._session.run([self._output], feed)
        vector = _pooled(found[0], self.folder.pooling) if found.ndim == 3 else found[0]
        length = max(float(np.linalg.norm(vector)), 1e-12) if self.normalize else 1.0
        return np.asarray(vector / length, np.float32)


def _open(weights: Path, label: str) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError(
            "an ONNX embedder needs the package onnxruntime", hint="pip install 'llmpipe[onnx]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(
            str(weights), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its exceptions have no common base class
        raise StageError(
            f"{label}: not an ONNX model that can be loaded: {str(error)[:300]}",
            hint="it must be one file that contains its weights",
        ) from None


def _check(session: Any, folder: EmbeddingFolder, label: str) -> tuple[set[str], str]:
    """Return the names of the inputs to fill and of the output to use.

    Raises:
        StageError: The file is not a text encoder, or its dimension differs from the model's.
    """
    inputs = {item.name for item in session.get_inputs()}
    if "input_ids" not in inputs or inputs - {*INPUTS}:
        raise StageError(
            f"{label}: not a text encoder: its inputs are {', '.join(sorted(inputs))}",
            hint=f"export the model with the inputs {', '.join(INPUTS)}",
        )
    shapes = {item.name: item.shape for item in session.get_outputs()}
    vectors = [name for name, shape in shapes.items() if len(shape) == 3]
    output = "sentence_embedding" if "sentence_embedding" in shapes else next(iter(vectors), None)
    if output is None:
        raise StageError(
            f"{label}: outputs no vector for each token: its outputs are {', '.join(shapes)}"
        )
    width = shapes[output][-1]
    if isinstance(width, int) and width != folder.dimension:
        raise StageError(
            f"{label}: outputs vectors of {width} dimensions; the model {folder.path.name} has "
            f"{folder.dimension}",
            hint="`weights` must be the same model as `model`, in another format",
        )
    return inputs, output


def _pooled(tokens: NDArray[np.float32], pooling: str) -> Any:
    """Pool the vectors of the tokens, which include no padding, into one vector."""
    if pooling == "cls":
        return tokens[0]
    if pooling == "lasttoken":
        return tokens[-1]
    return tokens.max(axis=0) if pooling == "max" else tokens.mean(axis=0)
