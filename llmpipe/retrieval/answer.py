"""Answer questions from an index: search, ask the model, cite; or say that nothing was found.

`Answerer.stream` gives what happens as it happens, `Answerer.answer` the end of it. Both may be
called from several threads at once: the generator takes as many questions as it has slots, a
reranker one, and the others wait. Whoever stops taking events, or cancels, ends the work behind
them.

A question that finds nothing by itself is searched once more together with the question before it,
so that "and on Sundays?" is understood.
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

STILL_THINKING = "There is no answer: the model's reply ended while it was still thinking."
"""What stands for an answer that the model did not come to."""

_UNFINISHED = re.compile(r"\s*\[\d*$")
"""A citation that an answer which is cut ends in."""


class AnswerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to search for an answer and ask for it; see the fields of the rag stage."""

    mode: Mode = "hybrid"
    k: int = 4
    fetch: int = FETCH
    fusion: Fusion = RELATIVE_SCORE
    alpha: float = ALPHA
    mmr: float | None = None
    filters: Filters = {}
    system: str | None = None


class Timings(msgspec.Struct, frozen=True):
    """Seconds that each step took. The prompt is made and measured; the model then reads it."""

    retrieve: float = 0.0
    rerank: float = 0.0
    prompt: float = 0.0
    generate: float = 0.0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer and what it rests on.

    The number of a citation is the rank of the hit that it quotes. ``abstained`` says that the
    documents do not hold an answer, be it that nothing was found or that the model says so. Where
    ``usage.unfinished``, the model came to no answer, and the text says that.
    """

    question: str
    text: str
    abstained: bool
    citations: tuple[Citation, ...]
    hits: tuple[Hit, ...]
    usage: Usage
    timings: Timings
    reasoning: str = ""
    """What the model thought before it answered; it is neither cited from nor compared."""

    def words_alone(self) -> WordsAlone | None:
        """Return why a hybrid search for it had only the words; None where it had the meaning."""
        return self.hits[0].words_alone if self.hits else None


class Retrieved(msgspec.Struct, frozen=True):
    """The search is done."""

    hits: tuple[Hit, ...]
    timings: Timings


class Token(msgspec.Struct, frozen=True):
    """The answer goes on with this text."""

    text: str


class Thinking(msgspec.Struct, frozen=True):
    """The model thinks on, before it answers."""

    text: str


class Done(msgspec.Struct, frozen=True):
    """The answer is complete."""

    answer: Answer


Event = Retrieved | Thinking | Token | Done
Events = abc.Generator[Event, None, None]


class SearchError(StageError):
    """The passages for an answer could not be searched; the model was not asked."""


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
        self._reranking = threading.Lock()  # its tokenizer takes one caller at a time

    def answer(
        self, question: str, history: Sequence[Turn] = (), *, k: int | None = None
    ) -> Answer:
        """Give the answer to a question; ``history`` holds the conversation before it.

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
        """Answer a question step by step; ``k`` takes another number of sources than the settings.

        After a cancellation the events just end, without `Done`.

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
            hits, timings = self._found(question, history, k or self.settings.k, cancellation)
        except CancelledError:
            return
        yield Retrieved(hits, timings)
        if not hits:
            yield Token(ABSTENTION)
            yield Done(abstention(question, timings))
            return
        yield from self._written(question, history, hits, timings, cancellation)

    def search(
        self,
        question: str,
        *,
        k: int,
        mode: Mode | None = None,
        filters: Filters | None = None,
        cancellation: Cancellation | None = None,
    ) -> tuple[Hit, ...]:
        """Give the passages that a question finds, however far off; nothing is answered.

        What is not given is as in the settings. A cancellation is heeded before the search, and
        wherever it has waited for its turn, at the embedder or the reranker; not in between.

        Raises:
            StageError: the question is empty, or cannot be searched so.
            CancelledError: nobody wants it any more.
        """
        check = (cancellation or Cancellation()).check
        return self._search(question, k, self._queued(check), check, mode=mode, filters=filters)

    def _found(
        self, question: str, history: Sequence[Turn], k: int, cancellation: Cancellation
    ) -> tuple[tuple[Hit, ...], Timings]:
        """Give the passages that a question finds; none where the nearest is too far off.

        Raises:
            SearchError: the index cannot be searched.
            CancelledError: nobody wants them any more; see `search`.
        """
        begun, check = time.monotonic(), cancellation.check
        reranker, passes = self._queued(check), self.threshold.passes
        try:
            hits = self._search(question, k, reranker, check, passes=passes)
            if not hits and history:
                both = f"{history[-1][0]}\n{question}"
                hits = self._search(both, k, reranker, check, passes=passes)
        except StageError as error:
            raise SearchError(error.message, hint=error.hint) from error
        reranking = reranker.seconds if reranker else 0.0
        return hits, _seconds(retrieve=time.monotonic() - begun - reranking, rerank=reranking)

    def _queued(self, check: Callable[[], None]) -> _QueuedReranker | None:
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
        """Search as the settings say where nothing else is given."""
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

    def _written(
        self,
        question: str,
        history: Sequence[Turn],
        hits: tuple[Hit, ...],
        timings: Timings,
        cancellation: Cancellation,
    ) -> Events:
        """Have the model write the answer, then cite."""
        begun = time.monotonic()
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
            return  # cancelled
        reply = whole(said)
        if not (self.generator.sees_prompt or reply.reasoning):
            reply = _parted(reply)
        text = STILL_THINKING if reply.unfinished else _UNFINISHED.sub("", reply.answer)
        abstained = _says_nothing(text)
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
                timings=_seconds(
                    retrieve=timings.retrieve,
                    rerank=timings.rerank,
                    prompt=asked - begun,
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
    """A reranker that is waited for, and says how long it then took."""

    def __init__(self, reranker: Reranker, lock: threading.Lock, check: Callable[[], None]) -> None:
        self._reranker = reranker
        self._lock = lock
        self._check = check
        self.seconds = 0.0

    def scores(self, question: str, passages: Sequence[str]) -> list[float]:
        with self._lock:
            self._check()
            begun = time.monotonic()
            try:
                return self._reranker.scores(question, passages)
            finally:
                self.seconds += time.monotonic() - begun


def abstention(question: str, timings: Timings) -> Answer:
    """Give the answer to a question that finds nothing, or cannot be asked."""
    return Answer(
        question=question,
        text=ABSTENTION,
        abstained=True,
        citations=(),
        hits=(),
        usage=Usage(0, 0),
        timings=timings,
    )


def _parted(reply: Reply) -> Reply:
    """Take reasoning out that an endpoint left in the answer, closed by a tag that nothing opened.

    It has been streamed by then: only the end of the answer shows what it was. Where the prompt is
    known, or the endpoint has told reasoning apart, such a tag is one that the answer speaks of.
    """
    found = part_unseen(reply.answer)
    return dataclasses.replace(reply, answer=found.answer, reasoning=found.reasoning)


def _says_nothing(text: str) -> bool:
    """Tell whether an answer says no more than that the sources hold none."""
    return text.strip("\"'. ").casefold() in ("", ABSTENTION.rstrip(".").casefold())


def _seconds(**steps: float) -> Timings:
    return Timings(**{step: round(max(0.0, seconds), 4) for step, seconds in steps.items()})
