"""What answers to labelled questions are worth: words, citations, and knowing when to be silent.

The words of an answer are compared with the reference, where there is one, without the numbers of
its citations. Who abstains has said nothing, which scores 0. So does a reply that ends inside the
model's reasoning, which is neither an answer nor an abstention. Of citations it counts whether they
are of a document that answers; citations are the sources that the answer itself names, not those
that are inferred for it. Numbers that no source has are none either: generators keep them out of
every answer. Each figure is over the questions that it can be told of, and is left out where there
are none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmpipe.evaluation.bootstrap import RowScores
from llmpipe.evaluation.text_metrics import exact_match, rouge_l, token_f1
from llmpipe.retrieval.answer import Answer
from llmpipe.retrieval.citations import without_numbers
from llmpipe.retrieval.eval_questions import Judged, Question

TEXT_FIGURES: Mapping[str, Callable[[str, str], float]] = {
    "rouge_l": rouge_l,
    "token_f1": token_f1,
    "exact_match": exact_match,
}


@dataclass(frozen=True, slots=True)
class Answered:
    """A labelled question, the documents that answer it, and the answer that was given."""

    question: Question
    judged: Judged
    answer: Answer

    def said(self) -> str:
        """Give the words of the answer: none where it abstains, or came to no answer."""
        return without_numbers(self.answer.text) if self.answers() else ""

    def answers(self) -> bool:
        """Tell whether it says something."""
        return not (self.answer.abstained or self.answer.usage.unfinished)

    def cited(self) -> list[str]:
        """Give the document of each citation that the answer makes."""
        return [c.document for c in self.answer.citations if not c.inferred]

    def right_citations(self) -> list[bool]:
        """Tell for each citation whether its document is one of those that answer."""
        return [self.judged.get(document, 0) > 0 for document in self.cited()]

    def as_row(self) -> dict[str, Any]:
        """Give what became of the question as data."""
        return {
            "id": self.question.id,
            "question": self.question.text,
            "answerable": self.question.answerable,
            "reference": self.question.answer,
            "answer": self.answer.text,
            "abstained": self.answer.abstained,
            "expected": list(self.judged),
            "found": list(dict.fromkeys(hit.chunk.document for hit in self.answer.hits)),
            "cited": list(dict.fromkeys(self.cited())),
            **({"reasoning": self.answer.reasoning} if self.answer.reasoning else {}),
        }


def answer_scores(answered: Sequence[Answered]) -> dict[str, RowScores]:
    """Give the scores of every figure that the questions allow.

    ``rouge_l``, ``token_f1`` and ``exact_match`` are of answerable questions with a reference;
    ``citation_rate`` is the share of given answers that cite anything, ``citation_precision`` that
    of their citations whose document answers; ``abstention_accuracy`` is the share of questions
    that are answered just where they can be, ``answered`` and ``abstained`` its halves: over the
    answerable questions and over those that are not.
    """
    return {name: scores for name, scores in _scores(answered) if scores.numerators}


def _scores(answered: Sequence[Answered]) -> Iterator[tuple[str, RowScores]]:
    compared = [one for one in answered if one.question.answerable and one.question.answer.strip()]
    for name, compare in TEXT_FIGURES.items():
        yield name, RowScores.mean([_of(one, compare) for one in compared])
    given = [one for one in answered if one.answers()]
    yield "citation_rate", RowScores.mean([float(bool(one.cited())) for one in given])
    judged = [one.right_citations() for one in given if one.judged and one.cited()]
    yield "citation_precision", RowScores([sum(c) for c in judged], [len(c) for c in judged])
    able = [float(one.answers()) for one in answered if one.question.answerable]
    unable = [float(one.answer.abstained) for one in answered if not one.question.answerable]
    right = [
        float(one.answers() if one.question.answerable else one.answer.abstained)
        for one in answered
    ]
    yield "abstention_accuracy", RowScores.mean(right)
    yield "answered", RowScores.mean(able)
    yield "abstained", RowScores.mean(unable)


def _of(one: Answered, compare: Callable[[str, str], float]) -> float:
    said = one.said()
    return compare(one.question.answer, said) if said else 0.0
