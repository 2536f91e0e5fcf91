"""Figures of answers to labelled questions: which rows and which citations each one counts."""

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
    """A question, and an answer that cites as it does in use."""
    question = Question(id="1", place="q.jsonl:1", text="When does the kiosk open?")
    sources = [source(number, text) for number, text in enumerate(TEXTS, 1)]
    answer = Answer(
        question=question.text, text=text, abstained=False, citations=cite(text, sources),
        hits=(), usage=Usage(0, 0), timings=Timings(),
    )  # fmt: skip
    return Answered(question, {"1.md": 1}, answer)


def source(number: int, text: str) -> Source:
    """A document that is one passage."""
    name, end = f"{number}.md", len(text)
    chunk = Chunk(
        id=name, document=name, start=0, end=end, text=text, tokens=9, section=(), pages=None,
        context="",
    )  # fmt: skip
    return Source(
        number, chunk, Document(name, name, "text/plain", "", text, (Section((), 0, end),))
    )


def figures(*answers: str) -> dict[str, float]:
    """The figures of the citations of some answers."""
    scores = answer_scores([answered(text) for text in answers])
    return {name: rows.value for name, rows in scores.items() if name.startswith("citation")}


def test_what_an_answer_cites_is_what_it_names() -> None:
    """Half of the answers cite; of three numbers one is of the document that answers."""
    found = figures("It opens at nine [1][2].", "The kiosk opens [2].", "Who knows?", "Nobody.")
    assert found == {"citation_rate": 0.5, "citation_precision": pytest.approx(1 / 3)}


def test_a_source_that_is_inferred_is_none_that_the_answer_cites() -> None:
    """A sentence without a number is given the passage that says it, which speaks for the search."""
    without = answered("The kiosk opens at nine.")
    assert [c.inferred for c in without.answer.citations] == [True]
    assert figures(without.answer.text) == {"citation_rate": 0}
    assert without.as_row()["cited"] == []
    assert figures("The kiosk opens at nine. Dogs are kept on a lead [2].") == {
        "citation_rate": 1,
        "citation_precision": 0,
    }
