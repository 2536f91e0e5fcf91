"""Search an index by vectors, by words or by both, and report how each passage was found.

A search has up to four steps. Filters select the rows that may be found. Vectors and BM25 each rank
the best of them. The two rankings are fused. A reranker, then maximal marginal relevance, may
reorder the result. Equal scores are ordered by row, so that the same index returns the same answer
to the same question.

The vector of a text that the embedder cannot read says nothing about it. In a hybrid search, such
passages are ranked by BM25 only, and so are all passages for such a question; see
`llmpipe.retrieval.reading`. When there is a threshold, a search by words alone counts as successful
if one passage contains `ENOUGH_WORDS` of the question's words.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from llmpipe.backends.faiss import best_first
from llmpipe.errors import StageError
from llmpipe.retrieval.embedder import PACKAGES, Embedder, EmbedderIdentity, ReadingEmbedder
from llmpipe.retrieval.filters import Filters
from llmpipe.retrieval.fusion import (
    ALPHA,
    RELATIVE_SCORE,
    Fusion,
    maximal_marginal_relevance,
    reciprocal_rank_fusion,
    relative_score_fusion,
    scaled,
)
from llmpipe.retrieval.hits import Hit, WordsAlone
from llmpipe.retrieval.index import OpenIndex, open_index
from llmpipe.retrieval.reading import Reading
from llmpipe.retrieval.rerank import Reranker

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]
    Rows = NDArray[np.int64]

Mode = Literal["hybrid", "dense", "bm25"]

FETCH = 50
"""How many passages each ranking contributes before fusion, reranking and the cut to ``k``."""

ENOUGH_WORDS = 1 / 3
"""The share of a question's words, weighted as in `Bm25.shares`, that a passage must contain when
only words decide. In texts in six languages, the passage with the answer has 0.36 or more and all
others have 0.25 or less (`tests/retrieval/languages.json`)."""

_EMBEDDING = dict.fromkeys(chain.from_iterable(PACKAGES.values()))
SEARCH_TOOLS = ("bm25s", "faiss-cpu", "PyStemmer", "regex", *_EMBEDDING)
"""Packages whose versions affect what is found. The embedder of the questions is known once the
index exists."""


Scores = Mapping[str, Mapping[int, float]]
"""The score of each row by each ranking, for all rows that any ranking contributed."""


@dataclass(frozen=True, slots=True)
class _Ranking:
    """One ranking: the ranks of its best rows, and a function that scores any rows."""

    ranks: Mapping[int, int]
    scores_of: Callable[[Sequence[int]], list[float]]

    def best(self) -> float:
        """Return the score of the first row; -1 without rows."""
        return next(iter(self.scores_of(list(self.ranks)[:1])), -1.0)


@dataclass(frozen=True, slots=True)
class _Rankings:
    """The rankings of a search; empty if nothing was found."""

    by_name: Mapping[str, _Ranking]
    words_alone: WordsAlone | None = None


class Retriever:
    """An index together with the embedder of its vectors.

    It is thread-safe. As many threads embed a question at once as the embedder allows; others wait.
    """

    def __init__(self, index: OpenIndex, embedder: Embedder) -> None:
        """Combine an index with its embedder.

        Raises:
            StageError: the index was made with another embedder.
        """
        _require_same(index.identity, embedder.identity)
        self.passages = index.passages
        self.index_written = index.written
        self._vectors = index.vectors
        self._bm25 = index.bm25
        self._unread = index.unread
        self._unread_set = frozenset(index.unread.tolist())
        self._embedder = embedder
        self._slots = threading.BoundedSemaphore(embedder.callers)

    @classmethod
    def open(
        cls, folder: Path, embedder: Embedder, *, verify: bool = True, threads: int = 1
    ) -> Retriever:
        """Open the index in a folder for searching.

        Raises:
            StageError: it cannot be read, was altered, or was built with another embedder.
        """
        return cls(open_index(folder, verify=verify, threads=threads), embedder)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes in which this index can be searched, best first."""
        return ("hybrid", "dense", "bm25") if self._bm25 else ("dense",)

    def search(
        self,
        question: str,
        *,
        k: int = 5,
        mode: Mode = "hybrid",
        fetch: int = FETCH,
        fusion: Fusion = RELATIVE_SCORE,
        alpha: float = ALPHA,
        filters: Filters | None = None,
        mmr: float | None = None,
        reranker: Reranker | None = None,
        passes: Callable[[float], bool] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> list[Hit]:
        """Return the ``k`` passages that match a question best.

        Args:
            question: the question to search for.
            k: how many passages to return.
            mode: vectors, words or both.
            fetch: how many passages each ranking contributes.
            fusion: how a hybrid search combines its rankings; see `llmpipe.retrieval.fusion`.
            alpha: weight of the vector score in the fusion.
            filters: which passages may be found; see `llmpipe.retrieval.filters`.
            mmr: from 0 (only variety) to 1 (only relevance); None keeps the order.
            reranker: reorders what was found.
            passes: whether the nearest passage's cosine is high enough. If not, nothing is found,
                unless passages that the embedder cannot read contain `ENOUGH_WORDS` of the words.
                It does not apply to the mode ``bm25``.
            check: called at the start and when the embedder is free; may raise to end the search.

        Raises:
            StageError: the question is empty, a filter is malformed, or words were not indexed.
        """
        check()
        question = readable(question)
        rows = self.passages.rows_matching(filters) if filters else None
        if rows is not None and not len(rows):
            return []
        rankings = self._rank(question, mode, max(k, fetch), rows, passes, check)
        if not rankings.by_name:
            return []
        scores = _scores(rankings.by_name)
        if len(scores) == 1:
            (order,) = scores.values()
        else:
            alpha *= self._reading(question).weight
            order = _fused(rankings.by_name, self._demote_unread(scores), fusion, alpha)
        hits = self._hits(rankings, scores, list(order.items())[: max(k, fetch)])
        if reranker and hits:
            hits = _reranked(hits, question, reranker)
        if mmr is not None:
            hits = self._diversified(hits, k, mmr)
        return [msgspec.structs.replace(hit, rank=rank) for rank, hit in enumerate(hits[:k], 1)]

    def _rank(
        self,
        question: str,
        mode: Mode,
        count: int,
        rows: Rows | None,
        passes: Callable[[float], bool] | None,
        check: Callable[[], None],
    ) -> _Rankings:
        """Rank rows in each way that the mode names.

        If the nearest passage does not pass, only passages that the embedder cannot read are
        searched.
        """
        if mode == "bm25":
            return _Rankings({"bm25": self._by_words(question, count, rows)})
        read, unread = self._split_readable(rows)
        if mode == "hybrid" and (why := self._reason_for_words_alone(question, read)):
            return self._search_by_words_alone(why, question, count, rows, passes)
        vector = self._embed(question, check)
        dense = self._by_vectors(vector, count, read)
        if passes and not passes(dense.best()):
            if mode == "dense" or not len(unread):
                return _Rankings({})
            return self._search_by_words_alone("distance", question, count, unread, passes)
        if mode == "dense":
            return _Rankings(
                {"dense": self._by_vectors(vector, count, rows) if len(unread) else dense}
            )
        return _Rankings({"dense": dense, "bm25": self._by_words(question, count, rows)})

    def words_alone(self, question: str) -> WordsAlone | None:
        """Return why a hybrid search of all passages uses BM25 only; None if it uses vectors."""
        return self._reason_for_words_alone(question, self._split_readable(None)[0])

    def nearest_cosine(self, question: str, filters: Filters | None = None) -> float | None:
        """Return the cosine of the nearest passage that the embedder can read.

        Returns:
            None if the embedder cannot read the question, or any passage.

        Raises:
            StageError: the question is empty, or a filter is malformed.
        """
        question = readable(question)
        read, _ = self._split_readable(self.passages.rows_matching(filters) if filters else None)
        if self._reason_for_words_alone(question, read):
            return None
        return self._by_vectors(self._embed(question), 1, read).best()

    def unread_passages(self, filters: Filters | None = None) -> tuple[int, int]:
        """Return how many of the passages the embedder cannot read, and how many there are."""
        rows = self.passages.rows_matching(filters) if filters else None
        _, unread = self._split_readable(rows)
        return len(unread), self.passages.count if rows is None else len(rows)

    def _reason_for_words_alone(self, question: str, read: Rows | None) -> WordsAlone | None:
        if self._reading(question).unread:
            return "question"
        return "passages" if read is not None and not len(read) else None

    def _search_by_words_alone(
        self,
        why: WordsAlone,
        question: str,
        count: int,
        rows: Rows | None,
        passes: Callable[[float], bool] | None,
    ) -> _Rankings:
        """Search with BM25 what cannot be searched with vectors; see `ENOUGH_WORDS`."""
        ranking = self._by_words(question, count, rows)
        if passes and not passes(-1.0):  # the lowest cosine: there is a threshold
            assert self._bm25 is not None
            if not (self._bm25.shares(question, list(ranking.ranks)) >= ENOUGH_WORDS).any():
                return _Rankings({})
        return _Rankings({"bm25": ranking}, why)

    def _reading(self, question: str) -> Reading:
        embedder = self._embedder
        return embedder.read(question) if isinstance(embedder, ReadingEmbedder) else Reading()

    def _split_readable(self, rows: Rows | None) -> tuple[Rows | None, Rows]:
        """Split rows into those that the embedder can read (None for all) and the others."""
        import numpy as np

        if not len(self._unread):
            return rows, self._unread
        among = np.arange(self.passages.count) if rows is None else rows
        unread = np.isin(among, self._unread, assume_unique=True)
        return among[~unread], among[unread]

    def _demote_unread(self, scores: Scores) -> Scores:
        """Lower the vector score of passages that the embedder cannot read to the lowest one."""
        dense = scores["dense"]
        unread = dense.keys() & self._unread_set
        least = min((score for row, score in dense.items() if row not in unread), default=0.0)
        return {**scores, "dense": {**dense, **dict.fromkeys(unread, least)}}

    def _hits(
        self, rankings: _Rankings, scores: Scores, found: Sequence[tuple[int, float]]
    ) -> list[Hit]:
        """Return the passages of rows with their scores and ranks."""

        def evidence(row: int) -> dict[str, Any]:
            names = rankings.by_name
            ranks = {f"{name}_rank": names[name].ranks.get(row) for name in names}
            values = {f"{name}_score": scores[name][row] for name in names}
            return {**ranks, **values, "words_alone": rankings.words_alone}

        chunks = self.passages.chunks([row for row, _ in found])
        return [
            Hit(chunk=chunk, row=row, score=score, rank=rank, **evidence(row))
            for rank, ((row, score), chunk) in enumerate(zip(found, chunks, strict=True), 1)
        ]

    def _embed(self, question: str, check: Callable[[], None] = lambda: None) -> Vectors:
        with self._slots:
            check()
            return self._embedder.embed_query(question)

    def _by_vectors(self, vector: Vectors, count: int, rows: Rows | None) -> _Ranking:
        if rows is not None and not len(rows):
            return _Ranking({}, lambda found: [])
        best, _ = self._vectors.search(vector, count, rows)
        return _Ranking(_ranks(best), lambda found: (self._vectors_of(found) @ vector).tolist())

    def _by_words(self, question: str, count: int, rows: Rows | None) -> _Ranking:
        import numpy as np

        if self._bm25 is None:
            raise StageError(
                "this index was built without BM25",
                hint="set `bm25: true` in the index stage, or search with the mode `dense`",
            )
        scores = self._bm25.scores(question)
        among = np.flatnonzero(scores) if rows is None else rows[scores[rows] > 0]
        best, _ = best_first(among, scores[among], count)
        return _Ranking(_ranks(best), lambda found: [float(scores[row]) for row in found])

    def _diversified(self, hits: list[Hit], k: int, trade_off: float) -> list[Hit]:
        """Return hits in the order of maximal marginal relevance, with scores scaled to 0–1."""
        import numpy as np

        if not 0 <= trade_off <= 1:
            raise StageError(f"mmr is {trade_off}; it goes from 0 (variety) to 1 (relevance)")
        vectors = self._vectors_of([hit.row for hit in hits])
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        units = vectors / np.where(lengths, lengths, 1)
        relevance = scaled([hit.score for hit in hits])
        order = maximal_marginal_relevance(relevance, (units @ units.T).tolist(), k, trade_off)
        return [hits[place] for place in order]

    def _vectors_of(self, rows: Sequence[int]) -> Vectors:
        import numpy as np

        return self._vectors.vectors(np.array(rows, dtype=np.int64))


def _scores(rankings: Mapping[str, _Ranking]) -> Scores:
    """Return the score of each row by each ranking, for all rows of any ranking."""
    pool = list(dict.fromkeys(chain.from_iterable(ranking.ranks for ranking in rankings.values())))
    return {
        name: dict(zip(pool, ranking.scores_of(pool), strict=True))
        for name, ranking in rankings.items()
    }


def _fused(
    rankings: Mapping[str, _Ranking], scores: Scores, fusion: Fusion, alpha: float
) -> Mapping[int, float]:
    """Return the fused score of each row, best first."""
    if fusion == "rrf":
        return reciprocal_rank_fusion([list(ranking.ranks) for ranking in rankings.values()])
    return relative_score_fusion(scores["dense"], scores["bm25"], alpha)


def _ranks(rows: Rows) -> dict[int, int]:
    return {int(row): rank for rank, row in enumerate(rows, 1)}


def _reranked(hits: list[Hit], question: str, reranker: Reranker) -> list[Hit]:
    scores = reranker.scores(question, [hit.chunk.embedded_text() for hit in hits])
    scored = [
        msgspec.structs.replace(hit, score=score, rerank_score=score)
        for hit, score in zip(hits, scores, strict=True)
    ]
    return sorted(scored, key=lambda hit: (-hit.score, hit.row))


def readable(question: str) -> str:
    """Return the question as valid Unicode: a command line may contain broken bytes.

    Raises:
        StageError: it is empty.
    """
    question = question.encode("utf-8", "replace").decode().strip()
    if not question:
        raise StageError("the question is empty", hint="write a question")
    return question


def _require_same(index: EmbedderIdentity, embedder: EmbedderIdentity) -> None:
    fields = embedder.differs_from(index)
    if fields:
        changes = (f"{f}: {getattr(index, f)!r} → {getattr(embedder, f)!r}" for f in fields)
        raise StageError(
            f"the index was built with {index.model}; the question would be embedded with "
            f"{embedder.model}, which differs ({', '.join(changes)})",
            hint="embed the chunks with this model, or ask with the model of the index",
        )
