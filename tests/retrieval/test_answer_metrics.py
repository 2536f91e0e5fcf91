"""Metrics of answers to labeled questions: which rows and which citations each one counts."""

from __future__ import annotations

import pytest

from llmpipe.backends.streaming import Usage
from llmpipe.documents.model import Document, Section
from llmpipe.retrieval.answer import Answer, Timings
from llmpipe.retrieval.answer_metrics import Answered, answer_scores
from llmpipe.retrieval.chunks import Chunk
from llmpipe.retrieval.citations import Source, cite
from llmpipe.retrieval.eval_questions import Question

TEXTS = ("The kiosk opens at nine.", "Dogs are kept on a lead.")
"""Of the two sources that every answer is given; the first is the one that answers."""


pytestmark = pytest.mark.heavy  # the package regex is of the extra `rag`


def answered(text: str) -> Answered:
    """Return a question and an answer with citations as in production."""
    question = Question(id="1", place="q.jsonl:1", text="When does the kiosk open?")
    sources = [source(number, text) for number, text in enumerate(TEXTS, 1)]
    answer = Answer(
        question=question.text, text=text, abstained=False, citations=cite(text, sources),
        hits=(), usage=Usage(0, 0), timings=Timings(),
    )  # fmt: skip
    return Answered(question, {"1.md": 1}, answer)


def source(number: int, text: str) -> Source:
    """Return a document that consists of one passage."""
    name, end = f"{number}.md", len(text)
    chunk = Chunk(
        id=name, document=name, start=0, end=end, text=text, tokens=9, section=(), pages=None,
        context="",
    )  # fmt: skip
    return Source(
        number, chunk, Document(name, name, "text/plain", "", text, (Section((), 0, end),))
    )


def metrics(*answers: str) -> dict[str, float]:
    """Return the citation metrics of some answers."""
    scores = answer_scores([answered(text) for text in answers])
    return {name: rows.value for name, rows in scores.items() if name.startswith("citation")}


def test_what_an_answer_cites_is_what_it_names() -> None:
    """Half of the answers cite a source; one of three numbers names a document that answers."""
    found = metrics("It opens at nine [1][2].", "The kiosk opens [2].", "Who knows?", "Nobody.")
    assert found == {"citation_rate": 0.5, "citation_precision": pytest.approx(1 / 3)}


def test_a_source_that_is_inferred_is_none_that_the_answer_cites() -> None:
    """A citation that was inferred for a sentence says nothing about the answer's own citations."""
    without = answered("The kiosk opens at nine.")
    assert [c.inferred for c in without.answer.citations] == [True]
    assert metrics(without.answer.text) == {"citation_rate": 0}
    assert without.as_row()["cited"] == []
    assert metrics("The kiosk opens at nine. Dogs are kept on a lead [2].") == {
        "citation_rate": 1,
        "citation_precision": 0,
    }
