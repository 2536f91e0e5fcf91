"""The config of the rag stage."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llmpipe.contracts import RandomSeed, SecretField, ServedConfig
from llmpipe.documents.model import Scalar
from llmpipe.retrieval.eval_questions import QuestionColumns
from llmpipe.retrieval.fusion import ALPHA, RELATIVE_SCORE, Fusion
from llmpipe.retrieval.generator import GeneratorConfig
from llmpipe.retrieval.search import FETCH, Mode


class FilterRange(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """A range of numbers, or of texts such as dates; both bounds are part of it."""

    min: str | int | float | None = None
    """The lowest value."""
    max: str | int | float | None = None
    """The highest value."""


class RagConfig(ServedConfig, frozen=True, kw_only=True):
    """The index, the model that answers, and how to search."""

    index: str
    """The index to answer from."""
    generator: GeneratorConfig
    """The model that writes the answers."""
    mode: Mode = "hybrid"
    """Search by meaning (`dense`), by words (`bm25`) or by both."""
    k: Annotated[int, Meta(ge=1, le=50)] = 4
    """Passages in the model's prompt, as far as its context allows."""
    fetch: Annotated[int, Meta(ge=1, le=1000)] = FETCH
    """Passages that each way of searching retrieves before fusion and reranking."""
    fusion: Fusion = RELATIVE_SCORE
    """How a `hybrid` search fuses its two rankings: by scores, or by ranks (reciprocal rank fusion,
    `rrf`)."""
    alpha: Annotated[float, Meta(ge=0, le=1)] = ALPHA
    """Weight of the meaning in `relative_score`; the words have the rest."""
    mmr: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Prefer diverse passages (maximal marginal relevance): 1 has no effect, 0 considers only
    diversity."""
    reranker: str | None = None
    """A cross-encoder that reorders the passages; better, but slower."""
    filters: dict[str, str | int | float | bool | tuple[Scalar, ...] | FilterRange] = {}
    """Conditions for passages: `document` (a pattern of ids), `section` (a title, or titles from
    the outermost inward), or any key of the documents' metadata; each with a value, a list, or a
    range."""
    threshold: Literal["auto"] | Annotated[float, Meta(ge=-1, le=1)] = "auto"
    """Cosine that the nearest passage must have for a question to reach the model. `auto` finds it
    by `calibration`, or so that one in twenty of sixty unrelated everyday questions passes."""
    calibration: str | None = None
    """Rows with a `question` and whether it is `answerable` from the documents, true or false."""
    questions: tuple[str, ...] = ()
    """Questions that the check asks; without any, and without `data`, it makes some up from the
    documents' titles."""
    data: str | None = None
    """Questions that the check asks to measure the answers: rows with a `question` and, as far as
    they are known, the reference `answer`, whether it is `answerable`, and the `documents` that
    answer it."""
    map: QuestionColumns | None = None
    """Which columns of `data` hold what."""
    limit: Annotated[int, Meta(ge=1)] | None = None
    """Ask only so many of the rows of `data`, drawn by `random_seed`."""
    random_seed: RandomSeed = 0
    """Which rows `limit` draws, and which resamples give the intervals."""
    system: str | None = None
    """What the model is told in the place of our own instruction to answer from the sources."""
    embedder: str | None = None
    """The model that the index was embedded with, where the index is a folder that does not say."""
    embedder_api_key: SecretField = None
    """The key of the endpoint that embeds questions, as ``${secret:NAME}``."""

    def plain_filters(self) -> dict[str, Any]:
        """Return the filters as a search takes them."""
        filters: dict[str, Any] = msgspec.to_builtins(self.filters)
        return filters
