"""Answer questions from an index: search, ask the model, cite the sources, or abstain.

`Answerer.stream` yields events as they happen; `Answerer.answer` returns the final answer. Several
threads may call both at once. The generator takes as many questions as it has slots and a reranker
takes one; other callers wait. The work stops when the caller closes the iterator or cancels.

A question that finds nothing by itself is searched once more together with the previous question of
the conversation, so that a follow-up such as "and on Sundays?" is understood.
"""

from __future__ import annotations

import dataclasses
import re
import threading
import time
from collections import abc
from collections.abc import Callable, Sequence
from contextlib import closing

import msgspec

from llmpipe.backends.reasoning import Reply, part_unseen
from llmpipe.backends.streaming import (
    Cancellation,
    CancelledError,
    Piece,
    Thought,
    Usage,
    whole,
)
from llmpipe.errors import StageError
from llmpipe.retrieval.citations import Citation, Source, cite
from llmpipe.retrieval.filters import Filters
from llmpipe.retrieval.fusion import ALPHA, RELATIVE_SCORE, Fusion
from llmpipe.retrieval.generator import Generator
from llmpipe.retrieval.hits import Hit, WordsAlone
from llmpipe.retrieval.prompt import ABSTENTION, QuestionError, Turn, build_prompt
from llmpipe.retrieval.rerank import Reranker
from llmpipe.retrieval.search import FETCH, Mode, Retriever, readable
from llmpipe.retrieval.threshold import Threshold

STILL_THINKING = "There is no answer: the model's reply ended inside its reasoning."
"""The text of an answer whose reply ended while the model was still reasoning."""

_UNFINISHED = re.compile(r"\s*\[\d*$")
"""An incomplete citation at the end of an answer that was cut."""


class AnswerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to search for passages and ask the model; see the fields of the rag stage."""

    mode: Mode = "hybrid"
    k: int = 4
    fetch: int = FETCH
    fusion: Fusion = RELATIVE_SCORE
    alpha: float = ALPHA
    mmr: float | None = None
    filters: Filters = {}
    system: str | None = None


class Timings(msgspec.Struct, frozen=True):
    """Seconds that each step took.

    ``prompt`` is the time to build the prompt and count its tokens. The time that the model takes
    to read it is part of ``generate``.
    """

    retrieve: float = 0.0
    rerank: float = 0.0
    prompt: float = 0.0
    generate: float = 0.0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer with its citations and the passages that were retrieved for it.

    The number of a citation is the rank of the hit that it quotes. ``abstained`` means that the
    documents do not contain an answer: the search found nothing, or the model said so. When
    ``usage.unfinished`` is true, the model did not finish its reasoning, and ``text`` says so.
    """

    question: str
    text: str
    abstained: bool
    citations: tuple[Citation, ...]
    hits: tuple[Hit, ...]
    usage: Usage
    timings: Timings
    reasoning: str = ""
    """What the model wrote before its answer. It is not searched for citations or compared."""

    def words_alone(self) -> WordsAlone | None:
        """Return why a hybrid search used BM25 only, or None when it used the vectors too."""
        return self.hits[0].words_alone if self.hits else None


class Retrieved(msgspec.Struct, frozen=True):
    """The search has finished."""

    hits: tuple[Hit, ...]
    timings: Timings


class Token(msgspec.Struct, frozen=True):
    """The next piece of the answer's text."""

    text: str


class Thinking(msgspec.Struct, frozen=True):
    """The next piece of the model's reasoning, before the answer."""

    text: str


class Done(msgspec.Struct, frozen=True):
    """The answer is complete."""

    answer: Answer


Event = Retrieved | Thinking | Token | Done
Events = abc.Generator[Event, None, None]


class SearchError(StageError):
    """The index could not be searched, so the model was not asked."""


class Answerer:
    """Answers questions from one index by one generator."""

    def __init__(
        self,
        retriever: Retriever,
        generator: Generator,
        settings: AnswerSettings,
        threshold: Threshold,
        reranker: Reranker | None = None,
    ) -> None:
        self.retriever = retriever
        self.generator = generator
        self.settings = settings
        self.threshold = threshold
        self.reranker = reranker
        self._reranking = threading.Lock()  # its tokenizer serves one caller at a time

    def answer(
        self, question: str, history: Sequence[Turn] = (), *, k: int | None = None
    ) -> Answer:
        """Return the answer to a question; ``history`` is the conversation before it.

        Raises:
            QuestionError: the question is empty or too long.
            SearchError: the index cannot be searched.
            StageError: the model cannot be asked.
        """
        *_, last = self.stream(question, history, k=k)
        assert isinstance(last, Done)
        return last.answer

    def stream(
        self,
        question: str,
        history: Sequence[Turn] = (),
        *,
        k: int | None = None,
        cancellation: Cancellation | None = None,
    ) -> Events:
        """Answer a question and yield each step.

        After a cancellation the events end without `Done`.

        Args:
            history: earlier turns of the conversation.
            k: how many sources to retrieve, if not as many as in the settings.
            cancellation: stops the work when it is triggered.

        Raises:
            QuestionError: the question is empty or too long.
            SearchError: the index cannot be searched.
            StageError: the model cannot be asked.
        """
        try:
            question = readable(question)
        except StageError as error:
            raise QuestionError(error.message, hint=error.hint) from None
        cancellation = cancellation or Cancellation()
        try:
            hits, timings = self._retrieve(question, history, k or self.settings.k, cancellation)
        except CancelledError:
            return
        yield Retrieved(hits, timings)
        if not hits:
            yield Token(ABSTENTION)
            yield Done(abstention(question, timings))
            return
        yield from self._generate(question, history, hits, timings, cancellation)

    def search(
        self,
        question: str,
        *,
        k: int,
        mode: Mode | None = None,
        filters: Filters | None = None,
        cancellation: Cancellation | None = None,
    ) -> tuple[Hit, ...]:
        """Return the passages for a question, without a threshold and without an answer.

        An argument that is left out comes from the settings. Cancellation is checked before the
        search and after each wait for the embedder or the reranker, not during their work.

        Raises:
            StageError: the question is empty, or this kind of search is not possible.
            CancelledError: the search was canceled.
        """
        check = (cancellation or Cancellation()).check
        return self._search(
            question, k, self._queued_reranker(check), check, mode=mode, filters=filters
        )

    def _retrieve(
        self, question: str, history: Sequence[Turn], k: int, cancellation: Cancellation
    ) -> tuple[tuple[Hit, ...], Timings]:
        """Return the passages for a question, or none when the nearest is below the threshold.

        Raises:
            SearchError: the index cannot be searched.
            CancelledError: the search was canceled; see `search`.
        """
        started, check = time.monotonic(), cancellation.check
        reranker, passes = self._queued_reranker(check), self.threshold.passes
        try:
            hits = self._search(question, k, reranker, check, passes=passes)
            if not hits and history:
                both = f"{history[-1][0]}\n{question}"
                hits = self._search(both, k, reranker, check, passes=passes)
        except StageError as error:
            raise SearchError(error.message, hint=error.hint) from error
        reranking = reranker.seconds if reranker else 0.0
        return hits, _timings(retrieve=time.monotonic() - started - reranking, rerank=reranking)

    def _queued_reranker(self, check: Callable[[], None]) -> _QueuedReranker | None:
        return _QueuedReranker(self.reranker, self._reranking, check) if self.reranker else None

    def _search(
        self,
        question: str,
        k: int,
        reranker: Reranker | None,
        check: Callable[[], None],
        *,
        mode: Mode | None = None,
        filters: Filters | None = None,
        passes: Callable[[float], bool] | None = None,
    ) -> tuple[Hit, ...]:
        """Search with the settings, except for the arguments that are given."""
        settings = self.settings
        return tuple(
            self.retriever.search(
                question,
                k=k,
                mode=mode or settings.mode,
                fetch=settings.fetch,
                fusion=settings.fusion,
                alpha=settings.alpha,
                filters=settings.filters if filters is None else filters,
                mmr=settings.mmr,
                reranker=reranker,
                passes=passes,
                check=check,
            )
        )

    def _generate(
        self,
        question: str,
        history: Sequence[Turn],
        hits: tuple[Hit, ...],
        timings: Timings,
        cancellation: Cancellation,
    ) -> Events:
        """Ask the model for the answer, then find its citations."""
        started = time.monotonic()
        try:
            prompt = build_prompt(
                question,
                self._sources(hits),
                self.generator,
                system=self.settings.system,
                history=history,
                check=cancellation.check,
            )
        except CancelledError:
            return
        asked = time.monotonic()
        said: list[Piece] = []
        pieces = self.generator.stream(
            prompt.messages, citations=len(prompt.sources), cancellation=cancellation
        )
        with closing(pieces):
            for piece in pieces:
                said.append(piece)
                if isinstance(piece, Thought):
                    yield Thinking(piece.text)
                elif isinstance(piece, str):
                    yield Token(piece)
        if not said or not isinstance(usage := said[-1], Usage):
            return  # canceled
        reply = whole(said)
        if not (self.generator.sees_prompt or reply.reasoning):
            reply = _separate_reasoning(reply)
        text = STILL_THINKING if reply.unfinished else _UNFINISHED.sub("", reply.answer)
        abstained = _is_abstention(text)
        yield Done(
            Answer(
                question=question,
                text=text or ABSTENTION,
                abstained=abstained,
                citations=()
                if abstained or reply.unfinished
                else cite(text, prompt.sources, is_cut=usage.truncated),
                hits=hits,
                usage=usage,
                timings=_timings(
                    retrieve=timings.retrieve,
                    rerank=timings.rerank,
                    prompt=asked - started,
                    generate=time.monotonic() - asked,
                ),
                reasoning=reply.reasoning,
            )
        )

    def _sources(self, hits: Sequence[Hit]) -> list[Source]:
        sources = []
        for hit in hits:
            document = self.retriever.passages.document(hit.chunk.document)
            assert document is not None  # an index holds the documents of all its chunks
            sources.append(Source(hit.rank, hit.chunk, document))
        return sources


class _QueuedReranker:
    """A reranker that serves one caller at a time and measures its own time, without the wait."""

    def __init__(self, reranker: Reranker, lock: threading.Lock, check: Callable[[], None]) -> None:
        self._reranker = reranker
        self._lock = lock
        self._check = check
        self.seconds = 0.0

    def scores(self, question: str, passages: Sequence[str]) -> list[float]:
        with self._lock:
            self._check()
            started = time.monotonic()
            try:
                return self._reranker.scores(question, passages)
            finally:
                self.seconds += time.monotonic() - started


def abstention(question: str, timings: Timings) -> Answer:
    """Return the answer for a question that found nothing or cannot be asked."""
    return Answer(
        question=question,
        text=ABSTENTION,
        abstained=True,
        citations=(),
        hits=(),
        usage=Usage(0, 0),
        timings=timings,
    )


def _separate_reasoning(reply: Reply) -> Reply:
    """Move reasoning that an endpoint left in the answer to the reply's ``reasoning``.

    Such reasoning ends with a closing tag that has no opening tag. It was already streamed as part
    of the answer: only the end of the answer shows what it was. This is not done when the prompt is
    known or the endpoint separates reasoning itself; the answer then just mentions the tag.
    """
    found = part_unseen(reply.answer)
    return dataclasses.replace(reply, answer=found.answer, reasoning=found.reasoning)


def _is_abstention(text: str) -> bool:
    """Return whether an answer says only that the sources do not contain one."""
    return text.strip("\"'. ").casefold() in ("", ABSTENTION.rstrip(".").casefold())


def _timings(**steps: float) -> Timings:
    return Timings(**{step: round(max(0.0, seconds), 4) for step, seconds in steps.items()})
