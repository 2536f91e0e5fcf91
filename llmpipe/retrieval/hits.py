"""What a search gives: passages, each with the reasons that it was found for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from llmpipe.retrieval.chunks import Chunk

WordsAlone = Literal["question", "passages", "distance"]
"""Why a hybrid search went by the words alone: the embedder cannot read the question, or any of the
passages, or those that it can read are all too far off."""
REASONS: Mapping[WordsAlone, str] = {
    "question": "the embedder cannot read the question",
    "passages": "the embedder can read none of the passages",
    "distance": "no passage that the embedder can read is near enough",
}


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A passage that was found, and why.

    ``score`` is what it was ordered by: the reranker's where there is one, else the fused score,
    the dense or BM25's, by mode. ``dense_rank`` and ``bm25_rank`` are its places in the two
    rankings, None where a ranking does not hold it or was not asked. ``dense_score`` is the inner
    product with the question, which is the cosine for an embedder that normalises; it and
    ``bm25_score`` are there for every hit of a search that asked for them. ``words_alone`` says why
    a hybrid search did not.
    """

    chunk: Chunk
    row: int
    score: float
    rank: int
    dense_rank: int | None = None
    dense_score: float | None = None
    bm25_rank: int | None = None
    bm25_score: float | None = None
    rerank_score: float | None = None
    words_alone: WordsAlone | None = None
