"""Search an index: by meaning, by words or by both, and say why each passage was found.

A search goes through up to four steps. Filters choose the rows that may be found at all; vectors
and words each rank the best of them; the two rankings are fused; a reranker, then maximal marginal
relevance, may put what was found into another order. Equal scores are ordered by row, so that the
same index gives the same answer to the same question.

A vector of what the embedder cannot read tells nothing. In a hybrid search such passages, and all
passages for such a question, are ranked by their words alone; see `llmpipe.retrieval.reading`.
Where a threshold is set, words alone have found something if one passage holds `ENOUGH` of those of
the question.
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
from llmpipe.retrieval.embedder import (
    PACKAGES,
    Embedder,
    EmbedderIdentity,
    ReadingEmbedder,
)
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
"""Passages that each ranking brings in before they are fused, reranked and cut to those wanted."""

ENOUGH = 1 / 3
"""The share of a question's words, by the weight of `Bm25.shares`, that is found where words alone
decide. Among texts in six languages the one that answers has 0.36 or more, the others 0.25 at most
(`tests/retrieval/languages.json`)."""

_EMBEDDING = dict.fromkeys(chain.from_iterable(PACKAGES.values()))
SEARCH_TOOLS = ("bm25s", "faiss-cpu", "PyStemmer", "regex", *_EMBEDDING)
"""The distributions that shape what is found. Which of them embeds the questions is known when the
index is there."""


Scores = Mapping[str, Mapping[int, float]]
"""What each way of searching thinks of rows that any of them brought in."""


@dataclass(frozen=True, slots=True)
class _Side:
    """One way of searching: its best rows with their ranks, and its scores of any rows."""

    ranks: Mapping[int, int]
    scores_of: Callable[[Sequence[int]], list[float]]

    def best(self) -> float:
        """Return the score of its first row; -1 where it has none."""
        return next(iter(self.scores_of(list(self.ranks)[:1])), -1.0)


@dataclass(frozen=True, slots=True)
class _Sides:
    """The ways that a search went; none where it found nothing."""

    by_name: Mapping[str, _Side]
    words_alone: WordsAlone | None = None


class Retriever:
    """An index together with the embedder that its vectors are of.

    Safe to use from several threads: so many embed a question at once as the embedder takes, and
    the others wait.
    """

    def __init__(self, index: OpenIndex, embedder: Embedder) -> None:
        """Join the two.

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
        self._places = threading.BoundedSemaphore(embedder.callers)

    @classmethod
    def open(
        cls, folder: Path, embedder: Embedder, *, verify: bool = True, threads: int = 1
    ) -> Retriever:
        """Open the index in a folder for searching with its embedder.

        Raises:
            StageError: it cannot be read, was altered, or was made with another embedder.
        """
        return cls(open_index(folder, verify=verify, threads=threads), embedder)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes that this index can be searched in, the best first."""
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
        """Give the ``k`` passages that suit a question best.

        ``fusion`` and ``alpha`` say how a hybrid search joins its two rankings; see
        `llmpipe.retrieval.fusion`. ``mmr`` from 0 to 1 asks for varied passages: 1 changes nothing,
        0 looks at variety alone. Where the cosine of the nearest passage does not pass, nothing is
        found, unless passages that the embedder cannot read hold `ENOUGH` of the question's words;
        the mode ``bm25`` knows no such limit. ``check`` is called first of all, and again when the
        turn to embed the question has come; what it raises ends the search.

        Raises:
            StageError: the question is empty, a filter makes no sense, or words were not indexed.
        """
        check()
        question = readable(question)
        rows = self.passages.rows_matching(filters) if filters else None
        if rows is not None and not len(rows):
            return []
        sides = self._sides(question, mode, max(k, fetch), rows, passes, check)
        if not sides.by_name:
            return []
        scores = _scores(sides.by_name)
        if len(scores) == 1:
            (order,) = scores.values()
        else:
            alpha *= self._reading(question).weight
            order = _fused(sides.by_name, self._less_unread(scores), fusion, alpha)
        hits = self._hits(sides, scores, list(order.items())[: max(k, fetch)])
        if reranker and hits:
            hits = _reranked(hits, question, reranker)
        if mmr is not None:
            hits = self._varied(hits, k, mmr)
        return [msgspec.structs.replace(hit, rank=rank) for rank, hit in enumerate(hits[:k], 1)]

    def _sides(
        self,
        question: str,
        mode: Mode,
        count: int,
        rows: Rows | None,
        passes: Callable[[float], bool] | None,
        check: Callable[[], None],
    ) -> _Sides:
        """Ask each way of searching that the mode names for its best rows.

        Where the nearest passage does not pass, only those are searched that cannot be read.
        """
        if mode == "bm25":
            return _Sides({"bm25": self._by_words(question, count, rows)})
        read, unread = self._apart(rows)
        if mode == "hybrid" and (why := self._why_words_alone(question, read)):
            return self._by_words_alone(why, question, count, rows, passes)
        vector = self._embedded(question, check)
        dense = self._by_meaning(vector, count, read)
        if passes and not passes(dense.best()):
            if mode == "dense" or not len(unread):
                return _Sides({})
            return self._by_words_alone("distance", question, count, unread, passes)
        if mode == "dense":
            return _Sides(
                {"dense": self._by_meaning(vector, count, rows) if len(unread) else dense}
            )
        return _Sides({"dense": dense, "bm25": self._by_words(question, count, rows)})

    def words_alone(self, question: str) -> WordsAlone | None:
        """Return why a hybrid search of all passages has only the words; None where it has both."""
        return self._why_words_alone(question, self._apart(None)[0])

    def nearest_cosine(self, question: str, filters: Filters | None = None) -> float | None:
        """Return the cosine of the nearest passage of those that the embedder can read.

        None where it can read none of them, or not the question.

        Raises:
            StageError: the question is empty, or a filter makes no sense.
        """
        question = readable(question)
        read, _ = self._apart(self.passages.rows_matching(filters) if filters else None)
        if self._why_words_alone(question, read):
            return None
        return self._by_meaning(self._embedded(question), 1, read).best()

    def unread_passages(self, filters: Filters | None = None) -> tuple[int, int]:
        """Return how many passages that may be found the embedder cannot read, and how many all."""
        rows = self.passages.rows_matching(filters) if filters else None
        _, unread = self._apart(rows)
        return len(unread), self.passages.count if rows is None else len(rows)

    def _why_words_alone(self, question: str, read: Rows | None) -> WordsAlone | None:
        if self._reading(question).unread:
            return "question"
        return "passages" if read is not None and not len(read) else None

    def _by_words_alone(
        self,
        why: WordsAlone,
        question: str,
        count: int,
        rows: Rows | None,
        passes: Callable[[float], bool] | None,
    ) -> _Sides:
        """Search by words what cannot be searched by meaning; see `ENOUGH`."""
        side = self._by_words(question, count, rows)
        if passes and not passes(-1.0):  # the lowest cosine: some questions are to find nothing
            assert self._bm25 is not None
            if not (self._bm25.shares(question, list(side.ranks)) >= ENOUGH).any():
                return _Sides({})
        return _Sides({"bm25": side}, why)

    def _reading(self, question: str) -> Reading:
        embedder = self._embedder
        return embedder.read(question) if isinstance(embedder, ReadingEmbedder) else Reading()

    def _apart(self, rows: Rows | None) -> tuple[Rows | None, Rows]:
        """Part rows into those that the embedder can read, None for all, and the others."""
        import numpy as np

        if not len(self._unread):
            return rows, self._unread
        among = np.arange(self.passages.count) if rows is None else rows
        unread = np.isin(among, self._unread, assume_unique=True)
        return among[~unread], among[unread]

    def _less_unread(self, scores: Scores) -> Scores:
        """Put the passages that the embedder cannot read last by meaning."""
        dense = scores["dense"]
        unread = dense.keys() & self._unread_set
        least = min((score for row, score in dense.items() if row not in unread), default=0.0)
        return {**scores, "dense": {**dense, **dict.fromkeys(unread, least)}}

    def _hits(self, sides: _Sides, scores: Scores, found: Sequence[tuple[int, float]]) -> list[Hit]:
        """Give the passages of rows, each with what every side says of it."""

        def evidence(row: int) -> dict[str, Any]:
            ranks = {f"{name}_rank": side.ranks.get(row) for name, side in sides.by_name.items()}
            told = {f"{name}_score": scores[name][row] for name in sides.by_name}
            return {**ranks, **told, "words_alone": sides.words_alone}

        chunks = self.passages.chunks([row for row, _ in found])
        return [
            Hit(chunk=chunk, row=row, score=score, rank=rank, **evidence(row))
            for rank, ((row, score), chunk) in enumerate(zip(found, chunks, strict=True), 1)
        ]

    def _embedded(self, question: str, check: Callable[[], None] = lambda: None) -> Vectors:
        with self._places:
            check()
            return self._embedder.embed_query(question)

    def _by_meaning(self, vector: Vectors, count: int, rows: Rows | None) -> _Side:
        if rows is not None and not len(rows):
            return _Side({}, lambda found: [])
        best, _ = self._vectors.search(vector, count, rows)
        return _Side(_ranks(best), lambda found: (self._vectors_of(found) @ vector).tolist())

    def _by_words(self, question: str, count: int, rows: Rows | None) -> _Side:
        import numpy as np

        if self._bm25 is None:
            raise StageError(
                "this index holds no words to search by",
                hint="set `bm25: true` in the index stage, or search with the mode `dense`",
            )
        scores = self._bm25.scores(question)
        among = np.flatnonzero(scores) if rows is None else rows[scores[rows] > 0]
        best, _ = best_first(among, scores[among], count)
        return _Side(_ranks(best), lambda found: [float(scores[row]) for row in found])

    def _varied(self, hits: list[Hit], k: int, trade_off: float) -> list[Hit]:
        """Put hits into the order of maximal marginal relevance, scores stretched over 0 to 1."""
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


def _scores(sides: Mapping[str, _Side]) -> Scores:
    """Give what every side thinks of all that any of them brought in, in their order."""
    pool = list(dict.fromkeys(chain.from_iterable(side.ranks for side in sides.values())))
    return {
        name: dict(zip(pool, side.scores_of(pool), strict=True)) for name, side in sides.items()
    }


def _fused(
    sides: Mapping[str, _Side], scores: Scores, fusion: Fusion, alpha: float
) -> Mapping[int, float]:
    """Make one order of two: the fused score of each row, best first."""
    if fusion == "rrf":
        return reciprocal_rank_fusion([list(side.ranks) for side in sides.values()])
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
    """Give the question as text that any tokenizer takes: a command line may hold broken bytes.

    Raises:
        StageError: there is nothing in it.
    """
    question = question.encode("utf-8", "replace").decode().strip()
    if not question:
        raise StageError("the question is empty", hint="ask something")
    return question


def _require_same(index: EmbedderIdentity, embedder: EmbedderIdentity) -> None:
    fields = embedder.differs_from(index)
    if fields:
        changes = (f"{f}: {getattr(index, f)!r} → {getattr(embedder, f)!r}" for f in fields)
        raise StageError(
            f"the index was made with {index.model}; the question would be embedded with "
            f"{embedder.model}, which differs ({', '.join(changes)})",
            hint="embed the chunks with this model, or ask with the model of the index",
        )
