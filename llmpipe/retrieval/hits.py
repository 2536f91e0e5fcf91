"""The results of a search: passages with their scores and ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from llmpipe.retrieval.chunks import Chunk

WordsAlone = Literal["question", "passages", "distance"]
"""Why a hybrid search used BM25 only: the embedder cannot read the question, or any passage, or
every passage that it can read is below the threshold."""
REASONS: Mapping[WordsAlone, str] = {
    "question": "the embedder cannot read the question",
    "passages": "the embedder can read none of the passages",
    "distance": "no passage that the embedder can read is near enough",
}


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A retrieved passage with its scores.

    Attributes:
        score: what the results are ordered by: the reranker's score if there is one, else the
            fused, dense or BM25 score, depending on the mode.
        dense_rank: its rank by vectors; None if it is not in that ranking.
        dense_score: inner product with the question; the cosine if the embedder normalizes. Every
            hit has one when the search used vectors.
        bm25_rank: its rank by BM25; None if it is not in that ranking.
        bm25_score: its BM25 score. Every hit has one when the search used words.
        words_alone: why a hybrid search did not use vectors.
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
