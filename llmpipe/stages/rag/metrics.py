"""The labeled questions of a rag stage, and the metrics of their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmpipe.contracts import Artifact
from llmpipe.evaluation.sampling import drawn
from llmpipe.evaluation.summary import cell, summarize
from llmpipe.evaluation.text_metrics import require_rouge
from llmpipe.retrieval.answer import Answer
from llmpipe.retrieval.answer_metrics import Answered, answer_scores
from llmpipe.retrieval.eval_questions import AnsweringDocuments, Judged, Question, read_questions
from llmpipe.retrieval.passages import Passages
from llmpipe.stages.rag.config import RagConfig

Metrics = Mapping[str, Mapping[str, float]]
"""By name, a metric's mean, the ends of its interval (``low``, ``high``), and ``n``, its rows."""


@dataclass(frozen=True, slots=True)
class Labeled:
    """Questions of which something is known, and the documents that answer each."""

    questions: Sequence[Question]
    judged: Sequence[Judged]

    @classmethod
    def read(cls, config: RagConfig, inputs: Mapping[str, Artifact], passages: Passages) -> Labeled:
        """Read and draw the questions of ``data``; none where the stage has no such field.

        Raises:
            StageError: a row cannot be used, or names a document that is not there.
            MissingDependencyError: what measures the answers is not installed.
        """
        if not config.data:
            return cls((), ())
        require_rouge()
        source, index = inputs["data"], inputs["index"].label
        rows = read_questions(source, config.map)
        questions = drawn(rows, config.limit, config.random_seed, lambda question: question.text)
        answering = AnsweringDocuments(passages, index, source)
        return cls(questions, answering.of_each(questions, required=False))

    def answered(self, answers: Sequence[Answer]) -> list[Answered]:
        """Join each question with its answer."""
        return list(map(Answered, self.questions, self.judged, answers))


def measure(answered: Sequence[Answered], seed: int) -> Metrics:
    """Return every metric with its 95 % interval."""
    if not answered:
        return {}
    metrics: Metrics = summarize({"answers": answer_scores(answered)}, seed)["models"]["answers"]
    return metrics


def lines(metrics: Metrics) -> list[str]:
    """Return the metrics as lines of text."""
    width = max(map(len, metrics), default=0)
    return [
        f"{name:<{width}}  {cell(metric)}  of {metric['n']}" for name, metric in metrics.items()
    ]
