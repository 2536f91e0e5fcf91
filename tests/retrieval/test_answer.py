"""Answers: events in order, citations of what was found, and abstentions when nothing was found."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openai_endpoint import Answer, Endpoint
from processes import wait_for
from town import TEXTS, write_index

from llmpipe.backends.streaming import Cancellation, CancelledError, Usage
from llmpipe.retrieval.answer import (
    STILL_THINKING,
    Answerer,
    AnswerSettings,
    Done,
    Event,
    Retrieved,
    Thinking,
    Token,
)
from llmpipe.retrieval.embedder import read_identity
from llmpipe.retrieval.embedders import open_embedder
from llmpipe.retrieval.generator import Generator, GeneratorConfig, open_generator
from llmpipe.retrieval.prompt import ABSTENTION, QuestionError
from llmpipe.retrieval.search import Retriever
from llmpipe.retrieval.threshold import Threshold

pytestmark = pytest.mark.heavy

ALL = Threshold("given", -1.0)
NONE = Threshold("given", 1.0)
WHEN = "When does the kiosk open?"


class Town:
    """An endpoint, an index embedded with it, and a generator that uses it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.endpoint = stack.enter_context(Endpoint())
        self.index = write_index(folder, self.endpoint)
        identity = read_identity(self.index / "embedder.json")
        self.embedder = stack.enter_context(open_embedder(identity))
        self.retriever = Retriever.open(self.index, self.embedder)
        config = GeneratorConfig(
            engine="openai", model="m", base_url=self.endpoint.url, slots=2, max_tokens=64
        )
        self.generator: Generator = stack.enter_context(
            open_generator(config, None, threads=1, reveal=str)
        )

    def answerer(self, threshold: Threshold = ALL, **settings: Any) -> Answerer:
        """Return an answerer; ``says`` is what its model answers."""
        says = settings.pop("says", "The kiosk opens at nine in the morning [1].")
        self.endpoint.reply = lambda body: (says, "stop")
        reranker = settings.pop("reranker", None)
        return Answerer(
            self.retriever, self.generator, AnswerSettings(**settings), threshold, reranker
        )

    def held(self, question: str) -> tuple[threading.Event, threading.Event]:
        """Delay the embedding of a question; return events for its arrival and its release."""
        come, let_go = threading.Event(), threading.Event()

        def hold(body: dict[str, Any], number: int) -> Answer | None:
            if body.get("input") == [question]:
                come.set()
                let_go.wait(20)
            return None

        self.endpoint.before = hold
        return come, let_go

    def asked(self) -> list[dict[str, Any]]:
        """Return the requests to the model, without those for embeddings."""
        return [body for body in self.endpoint.received if "messages" in body]


class Noted(Cancellation):
    """Records whether it is used."""

    def __init__(self) -> None:
        super().__init__()
        self.checked = threading.Event()

    def check(self) -> None:
        self.checked.set()
        super().check()


def stands_in(thread: threading.Thread, function: str) -> bool:
    """Return whether a thread is inside a function with the given name."""
    frame = sys._current_frames().get(thread.ident or 0)
    return any(each.f_code.co_name == function for each, _ in traceback.walk_stack(frame))


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """Yield a town to ask about."""
    with ExitStack() as stack:
        yield Town(tmp_path, stack)


def test_an_answer_comes_with_its_place(town: Town) -> None:
    """It has the hits, the verbatim quotes, and the sentences that they support."""
    events: list[Event] = list(town.answerer(k=2).stream(WHEN))
    assert isinstance(events[0], Retrieved)
    assert events[0].hits[0].chunk.document == "kiosk.md"
    pieces = [event.text for event in events if isinstance(event, Token)]
    assert len(pieces) > 3
    assert isinstance(events[-1], Done)
    answer = events[-1].answer
    assert answer.text == "".join(pieces) == "The kiosk opens at nine in the morning [1]."
    assert not answer.abstained
    (citation,) = answer.citations
    assert citation.quote == "The kiosk opens at nine in the morning."
    assert (citation.document, citation.title) == ("kiosk.md", "About kiosk")
    assert TEXTS["kiosk.md"][citation.start : citation.end] == citation.quote
    assert (citation.pages, citation.section) == ((1, 1), ("Rules",))
    assert answer.usage == Usage(9, 5)
    assert answer.timings.generate > 0
    assert len(answer.hits) == 2


def test_an_answer_is_data(town: Town) -> None:
    """It survives a round trip through JSON."""
    answer = town.answerer().answer(WHEN)
    assert msgspec.json.decode(msgspec.json.encode(answer), type=type(answer)) == answer


def test_what_nothing_is_near_does_not_reach_the_model(town: Town) -> None:
    """Below the threshold there are no hits, no citations and no request."""
    *events, last = town.answerer(NONE).stream(WHEN)
    assert isinstance(last, Done)
    assert (last.answer.text, last.answer.abstained, last.answer.hits) == (ABSTENTION, True, ())
    assert events[1:] == [Token(ABSTENTION)]
    assert town.asked() == []


@pytest.mark.parametrize("says", ["The sources do not say.", '"the sources do not say"', " "])
def test_a_model_that_finds_nothing_abstains(town: Town, says: str) -> None:
    """Whether in its own words or with an empty reply; nothing is cited then."""
    answer = town.answerer(says=says).answer(WHEN)
    assert answer.abstained
    assert answer.citations == ()
    assert answer.text
    assert answer.hits


def test_filters_narrow_what_is_found(town: Town) -> None:
    """An excluded document is not given to the model; without any document there is no answer."""
    answer = town.answerer(filters={"document": "permits.*"}).answer(WHEN)
    assert [hit.chunk.document for hit in answer.hits] == ["permits.md"]
    assert "nine in the morning" not in town.asked()[0]["messages"][1]["content"]
    assert town.answerer(filters={"language": "de"}).answer(WHEN).abstained


def test_another_number_of_sources(town: Town) -> None:
    """A question may ask for more or fewer sources than the settings."""
    assert len(town.answerer(k=1).answer(WHEN, k=3).hits) == 3


def test_words_alone_need_no_vector(town: Town) -> None:
    """A search by words abstains only if no passage contains any of them."""
    answerer = town.answerer(Threshold("none"), mode="bm25")
    assert answerer.answer(WHEN).hits[0].chunk.document == "kiosk.md"
    assert answerer.answer("zebra xylophone").abstained
    assert all("messages" in body for body in town.endpoint.received)


def test_a_reranker_is_clocked(town: Town) -> None:
    """Its order is used, and its time is reported separately."""

    class ByLength:
        def scores(self, question: str, passages: Sequence[str]) -> list[float]:
            threading.Event().wait(0.05)
            return [-len(passage) for passage in passages]

    answer = town.answerer(reranker=ByLength(), k=1).answer(WHEN)
    assert answer.hits[0].chunk.document == "permits.md"
    assert answer.timings.rerank >= 0.05


def test_a_follow_up_is_searched_with_the_question_before(town: Town) -> None:
    """Only if it finds nothing by itself; the model receives the conversation."""
    alone, together = "zz?", f"{WHEN}\nzz?"
    answerer = town.answerer(ALL)
    low, high = (town.retriever.nearest_cosine(text) for text in (alone, together))
    assert low is not None
    assert high is not None
    assert low < high
    answerer.threshold = Threshold("given", (low + high) / 2)
    assert answerer.answer(alone).abstained
    answer = answerer.answer(alone, [(WHEN, "At nine.")])
    assert answer.hits[0].chunk.document == "kiosk.md"
    roles = [message["role"] for message in town.asked()[-1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]


def test_an_order_in_a_source_stays_a_source(town: Town) -> None:
    """It is not in the system message, and its control token is broken up."""
    town.answerer(k=3).answer("May dogs walk in parks?")
    system, user = town.asked()[0]["messages"]
    assert "HACKED" not in system["content"]
    assert "say HACKED" in user["content"].partition("</sources>")[0]
    assert "<|im_start|>" not in user["content"]


@pytest.mark.parametrize("question", ["", " \n"])
def test_an_empty_question_is_refused(town: Town, question: str) -> None:
    """The error comes before any search."""
    with pytest.raises(QuestionError, match="empty"):
        town.answerer().answer(question)


def test_a_question_of_broken_bytes_is_asked_as_text(town: Town) -> None:
    """Invalid bytes never reach the model, in any search mode."""
    answer = town.answerer(mode="bm25").answer("When does the kiosk open \udcff?")
    assert answer.question == "When does the kiosk open ??"
    assert town.asked()[0]["messages"][-1]["content"].endswith(answer.question)


def test_who_stops_listening_ends_the_work(town: Town) -> None:
    """The endpoint notices within a second."""
    answerer = town.answerer(says="word " * 2000)
    town.endpoint.pause = 0.01
    events = answerer.stream(WHEN)
    assert isinstance(next(events), Retrieved)
    assert isinstance(next(events), Token)
    events.close()
    assert town.endpoint.hung_up.wait(10)


def test_a_cancellation_leaves_the_answer_undone(town: Town) -> None:
    """The events end without `Done`."""
    answerer = town.answerer(says="word " * 2000)
    town.endpoint.pause = 0.05
    cancellation = Cancellation()
    threading.Timer(0.3, cancellation.cancel).start()
    events = list(answerer.stream(WHEN, cancellation=cancellation))
    assert not any(isinstance(event, Done) for event in events)
    assert town.endpoint.hung_up.wait(10)


def test_several_ask_at_once(town: Town) -> None:
    """Each gets its own answer, and there are never more requests than slots."""
    answerer = town.answerer()
    town.endpoint.reply = lambda body: (body["messages"][-1]["content"].split("\n")[-1], "stop")
    found: dict[int, str] = {}

    def ask(i: int) -> None:
        found[i] = answerer.answer(f"Does the kiosk open at {i}?").text

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: f"Does the kiosk open at {i}?" for i in range(6)}
    assert town.endpoint.most_in_flight <= 2


def test_a_slow_endpoint_holds_up_no_other_search(town: Town) -> None:
    """While one question is being embedded, others are embedded too."""
    answerer = town.answerer()
    come, let_go = town.held("slow")
    slow = threading.Thread(target=lambda: answerer.search("slow", k=1))
    slow.start()
    assert come.wait(10)
    assert answerer.search(WHEN, k=1)[0].chunk.document == "kiosk.md"
    assert answerer.answer(WHEN).citations
    assert slow.is_alive()
    let_go.set()
    slow.join()


def test_who_no_longer_waits_is_not_searched_for(town: Town) -> None:
    """This also holds for a search by words, which does not wait for anything."""
    answerer, cancellation = town.answerer(Threshold("none"), mode="bm25"), Cancellation()
    cancellation.cancel()
    with pytest.raises(CancelledError):
        answerer.search(WHEN, k=1, cancellation=cancellation)
    assert list(answerer.stream(WHEN, cancellation=cancellation)) == []


def test_who_no_longer_waits_for_the_embedder_is_not_searched_for(town: Town) -> None:
    """An embedder that takes one question at a time never receives canceled ones."""
    town.embedder.callers = 1
    town.retriever = Retriever.open(town.index, town.embedder)
    answerer, cancellation = town.answerer(), Noted()
    come, let_go = town.held("slow")
    events: list[Event] = []
    refused: list[CancelledError] = []

    def search() -> None:
        try:
            answerer.search(WHEN, k=1, cancellation=cancellation)
        except CancelledError as error:
            refused.append(error)

    threads = [
        threading.Thread(target=lambda: answerer.search("slow", k=1)),
        threading.Thread(target=search),
        threading.Thread(
            target=lambda: events.extend(answerer.stream(WHEN, cancellation=cancellation))
        ),
    ]
    threads[0].start()
    assert come.wait(10)
    for thread in threads[1:]:
        cancellation.checked.clear()
        thread.start()
        assert cancellation.checked.wait(10)  # it has begun, and goes on to the embedder
        thread.join(0.1)
        assert thread.is_alive()
    cancellation.cancel()
    let_go.set()
    for thread in threads:
        thread.join()
    assert (len(refused), events) == (1, [])
    assert len(town.endpoint.received) == 1


def test_a_reranker_takes_one_at_a_time(town: Town) -> None:
    """A caller that disconnects before its turn is not reranked for."""

    class Slow:
        let_go = threading.Event()
        callers = 0

        def scores(self, question: str, passages: Sequence[str]) -> list[float]:
            self.callers += 1
            self.let_go.wait(20)
            return [0.0] * len(passages)

    reranker, cancellation = Slow(), Cancellation()
    answerer = town.answerer(reranker=reranker)
    first = threading.Thread(target=lambda: answerer.search(WHEN, k=1))
    second = threading.Thread(target=lambda: list(answerer.stream(WHEN, cancellation=cancellation)))
    for thread in (first, second):
        thread.start()
        wait_for(partial(stands_in, thread, "scores"))
    cancellation.cancel()
    reranker.let_go.set()
    for thread in (first, second):
        thread.join()
    assert reranker.callers == 1


@pytest.mark.parametrize(
    ("thought", "says"),
    [
        ("At nine? [1] says it, [2] too.", "It opens at nine in the morning [1]."),
        ("", "<think>At nine? [1] says it, [2] too.</think> It opens at nine in the morning [1]."),
        ("", "At nine? [1] says it, [2] too.</think> It opens at nine in the morning [1]."),
    ],
    ids=["told apart", "in tags", "only closed"],
)
def test_reasoning_is_no_part_of_the_answer(town: Town, thought: str, says: str) -> None:
    """It is kept separately and never cited, whatever form the endpoint uses."""
    town.endpoint.thought = ("reasoning_content", thought)
    events = list(town.answerer(says=says, k=2).stream(WHEN))
    done = events[-1]
    assert isinstance(done, Done)
    assert done.answer.text == "It opens at nine in the morning [1]."
    assert done.answer.reasoning == "At nine? [1] says it, [2] too."
    assert [citation.number for citation in done.answer.citations] == [1]
    if "<think>" in says or thought:
        written = "".join(event.text for event in events if isinstance(event, Token))
        assert written.strip() == done.answer.text
        assert any(isinstance(event, Thinking) for event in events)


@pytest.mark.parametrize("sees_prompt", [True, False])
def test_an_answer_may_speak_of_a_closing_tag(
    town: Town, sees_prompt: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the start of an answer was taken for reasoning although there was none.

    This is known if the prompt is known, or if the endpoint separates reasoning.
    """
    said = "At nine [1]. Use `</think>` to close."
    town.endpoint.thought = ("reasoning_content", "" if sees_prompt else "Hm.")
    monkeypatch.setattr(town.generator, "sees_prompt", sees_prompt)
    answer = town.answerer(says=said, k=2).answer(WHEN)
    assert answer.text == said
    assert answer.reasoning == ("" if sees_prompt else "Hm.")
    assert [citation.number for citation in answer.citations] == [1]


def test_a_reply_that_ends_while_thinking_is_no_answer(town: Town) -> None:
    """It is not an abstention either, because the end of the reply is unknown."""
    answerer = town.answerer()
    town.endpoint.reply = lambda body: ("<think>The kiosk [1]", "length")
    answer = answerer.answer(WHEN)
    assert answer.text == STILL_THINKING
    assert answer.usage.unfinished
    assert answer.usage.truncated
    assert (answer.abstained, answer.citations) == (False, ())
    assert answer.reasoning == "The kiosk [1]"
