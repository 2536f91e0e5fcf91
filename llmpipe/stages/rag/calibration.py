"""Find the threshold of a rag stage, from labeled questions or from unrelated ones."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from llmpipe.contracts import StageContext
from llmpipe.errors import StageError
from llmpipe.retrieval.eval_questions import Question, QuestionColumns, read_questions
from llmpipe.retrieval.search import Retriever
from llmpipe.retrieval.threshold import (
    Threshold,
    from_labeled,
    from_unrelated,
    unrelated_questions,
)
from llmpipe.stages.rag.config import RagConfig


def find_threshold(ctx: StageContext[RagConfig], retriever: Retriever) -> Threshold:
    """Return the threshold of the spec, or find one by searching the index for questions.

    Raises:
        StageError: The embedder cannot read the questions, or the passages in the mode
            ``dense``.
    """
    config = ctx.config
    if config.mode == "bm25":
        return Threshold("none")
    if config.threshold != "auto":
        return Threshold("given", config.threshold)
    filters = config.plain_filters()
    unread, passages = retriever.unread_passages(filters)
    if unread == passages:
        if config.mode == "dense":
            raise StageError(
                "the embedder can read no passage: no question can be compared with them",
                hint="set `mode: bm25`, or embed the chunks with a model of their language",
            )
        return Threshold("words", unread_passages=unread)
    labeled: list[Question] = []
    if config.calibration:
        label = QuestionColumns(answerable="answerable")  # which every row must have
        labeled = read_questions(ctx.input("calibration"), label)
    questions = [question.text for question in labeled] or unrelated_questions()
    cosines = []
    for done, text in enumerate(questions):
        ctx.progress(done, len(questions), "questions of the calibration")
        cosines.append(retriever.nearest_cosine(text, filters))
    return replace(_calibrated(cosines, labeled), unread_passages=unread)


def _calibrated(cosines: Sequence[float | None], labeled: Sequence[Question]) -> Threshold:
    """Return the threshold from the questions that the embedder can read."""
    known = [cosine for cosine in cosines if cosine is not None]
    if not known:
        raise StageError(
            f"the embedder can read none of the {len(cosines)} calibration questions",
            hint="name questions that it reads as `calibration`, or set `threshold`",
        )
    unread = len(cosines) - len(known)
    if not labeled:
        return replace(from_unrelated(known), unread=unread)
    read = zip(cosines, labeled, strict=True)
    answerable = [question.answerable for cosine, question in read if cosine is not None]
    return from_labeled(known, answerable, unread=unread)
