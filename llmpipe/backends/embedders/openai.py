"""Embed texts with an OpenAI-compatible endpoint, several texts in each request.

`llmpipe.backends.openai.client` sends the requests. When the endpoint refuses a request, its texts
are sent one by one, so that the error names the refused text. The vectors are checked: one for each
text, all of the same length. Only the endpoint knows the maximum length of a text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llmpipe.backends.openai.client import ApiClient, Failure, Words
from llmpipe.errors import ModelServerError, StageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONCURRENCY = 4
"""The number of concurrent requests."""
EMBEDDER = Words("the embedder", "", "the vectors so far are kept")


class _RefusedError(StageError):
    """The endpoint refuses a text; ``detail`` is its own message."""

    def __init__(self, where: str, text: str, detail: str) -> None:
        super().__init__(
            f"the embedder at {where} refuses the text {text[:60]!r} "
            f"({len(text)} characters): {detail}",
            hint="if it is too long, lower `tokens` of the chunk stage",
        )
        self.detail = detail


class EndpointEmbedder:
    """A model behind an endpoint. Use it as a context manager.

    Several threads can use it at once. ``dimension`` asks the endpoint to shorten its vectors; 0
    does not ask.
    """

    callers = CONCURRENCY

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str = "none",
        batch_size: int = 32,
        dimension: int = 0,
        normalize: bool = True,
        passage_prefix: str = "",
        query_prefix: str = "",
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self.dimension = dimension
        self.normalize = normalize
        self.passage_prefix = passage_prefix
        self.query_prefix = query_prefix
        self._client = ApiClient(base_url, EMBEDDER, CONCURRENCY, api_key=api_key)

    def __enter__(self) -> EndpointEmbedder:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._client.__exit__(*exc_info)

    def embed_passages(
        self, texts: Sequence[str], progress: Callable[[int], None] = lambda done: None
    ) -> NDArray[np.float32]:
        """Return a vector for every text; ``progress`` gets the number done, in another thread.

        Raises:
            MissingDependencyError: The ``openai`` package is not installed.
            StageError: The endpoint cannot be reached or refuses, or its vectors are unusable.
        """
        return self._embed([self.passage_prefix + text for text in texts], progress)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return the vector of a question; it fails like `embed_passages`, without quoting it."""
        try:
            return self.embed_queries([text]).reshape(-1)
        except _RefusedError as error:
            where, length = self._client.base_url, len(text)
            gist = f"the embedder at {where} refuses a question of {length} characters"
            raise ModelServerError(
                f"{gist}: {error.detail}",
                gist=gist,
                hint="if it is too long, ask a shorter one",
            ) from None

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of several questions, in requests of `batch_size`."""
        return self._embed([self.query_prefix + text for text in texts], lambda done: None)

    def _embed(self, texts: list[str], progress: Callable[[int], None]) -> NDArray[np.float32]:
        size = self.batch_size
        batches = [texts[i : i + size] for i in range(0, len(texts), size)]
        done = 0

        async def send(api: Any, batch: list[str]) -> list[list[float]]:
            nonlocal done
            vectors = self._vectors(await api.embeddings.create(**self._body(batch)), len(batch))
            done += len(batch)
            progress(done)
            return vectors

        outcomes = self._client.call(batches, send)
        rows: list[list[float]] = []
        for batch, outcome in zip(batches, outcomes, strict=True):
            rows += outcome if not isinstance(outcome, Failure) else self._singly(batch, send)
        return self._checked(rows)

    def _singly(self, batch: list[str], send: Callable[..., Any]) -> list[list[float]]:
        """Send the texts of a refused request one by one.

        Raises:
            StageError: A text is refused again.
        """
        rows: list[list[float]] = []
        for text in batch:
            (outcome,) = self._client.call([[text]], send)
            if isinstance(outcome, Failure):
                raise _RefusedError(self._client.base_url, text, outcome.detail)
            rows += outcome
        return rows

    def _body(self, batch: list[str]) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "input": batch, "encoding_format": "float"}
        if self.dimension:
            body["dimensions"] = self.dimension
        return body

    def _vectors(self, answer: Any, count: int) -> list[list[float]]:
        items = sorted(answer.data or (), key=lambda item: item.index)
        if [item.index for item in items] != list(range(count)):
            raise StageError(
                f"{self._client.base_url} returned {len(items)} vectors for {count} texts",
                hint="is it an OpenAI-compatible endpoint? base_url usually ends in /v1",
            )
        return [item.embedding for item in items]

    def _checked(self, rows: list[list[float]]) -> NDArray[np.float32]:
        import numpy as np

        where = self._client.base_url
        widths = {len(row) for row in rows}
        if len(widths) > 1:
            raise StageError(f"{where} returned vectors of several lengths: {sorted(widths)}")
        vectors = np.array(rows, np.float32)
        if self.dimension and widths - {self.dimension}:
            raise StageError(
                f"{where} returned vectors of {vectors.shape[1]} dimensions, not {self.dimension}",
                hint="leave `dimensions` out, or use a length that the model supports",
            )
        if self.normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors
