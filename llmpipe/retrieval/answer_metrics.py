"""Compute metrics of answers to labeled questions: text overlap, citations and abstentions.

An answer is compared with its reference, if it has one, without citation numbers. An abstention
counts as empty text and scores 0, and so does a reply that ended inside the model's reasoning; the
latter is neither an answer nor an abstention. A citation is right when its document answers the
question. Only sources that the answer names count, not inferred citations; generators prevent
numbers that match no source. Each metric covers the questions it applies to, and is omitted when
there are none.
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

TEXT_METRICS: Mapping[str, Callable[[str, str], float]] = {
    "rouge_l": rouge_l,
    "token_f1": token_f1,
    "exact_match": exact_match,
}


@dataclass(frozen=True, slots=True)
class Answered:
    """A labeled question, the documents that answer it, and the answer that was returned."""

    question: Question
    judged: Judged
    answer: Answer

    def said(self) -> str:
        """Return the text of the answer, or an empty string if there is no answer."""
        return without_numbers(self.answer.text) if self.answers() else ""

    def answers(self) -> bool:
        """Return whether it is an answer: neither an abstention nor unfinished."""
        return not (self.answer.abstained or self.answer.usage.unfinished)

    def cited(self) -> list[str]:
        """Return the document of each citation that the answer names."""
        return [c.document for c in self.answer.citations if not c.inferred]

    def right_citations(self) -> list[bool]:
        """Return for each citation whether its document answers the question."""
        return [self.judged.get(document, 0) > 0 for document in self.cited()]

    def as_row(self) -> dict[str, Any]:
        """Return the question, the answer and its documents as a row of JSON values."""
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
    """Return the scores of every metric that applies to these questions.

    - ``rouge_l``, ``token_f1``, ``exact_match``: over answerable questions with a reference.
    - ``citation_rate``: the share of answers that cite a source.
    - ``citation_precision``: the share of citations whose document answers the question.
    - ``abstention_accuracy``: the share of questions that are answered if answerable, and abstained
      from otherwise. Its two parts are ``answered``, over answerable questions, and ``abstained``,
      over the others.
    """
    return {name: scores for name, scores in _scores(answered) if scores.numerators}


def _scores(answered: Sequence[Answered]) -> Iterator[tuple[str, RowScores]]:
    compared = [one for one in answered if one.question.answerable and one.question.answer.strip()]
    for name, compare in TEXT_METRICS.items():
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
