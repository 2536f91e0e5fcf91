"""Decide when a search has found nothing: a threshold on the cosine of the nearest passage.

With labeled questions, it is the threshold that best separates questions with an answer in the
documents from those without. Otherwise, everyday questions from many fields are searched, which
hardly any collection answers, and the threshold is the cosine that one in twenty of them exceeds.
About one unrelated question in twenty therefore still reaches the model. A collection about one of
these fields loses nothing, since it can answer only three of the sixty questions.

Passages and questions that the embedder cannot read are left out, because their cosines say
nothing. A hybrid search judges them by words: see `llmpipe.retrieval.search.ENOUGH_WORDS`. In the
mode ``bm25``, a search has found nothing only if no passage shares a word with the question.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import files
from itertools import pairwise
from typing import Literal

import msgspec

from llmpipe.errors import StageError

UNRELATED_SHARE = 0.05
"""The share of unrelated questions that the threshold lets through."""
DIGITS = 4
"""Decimals of a threshold: cosines are not more exact than that across machines."""


class Threshold(msgspec.Struct, frozen=True):
    """The lowest cosine that counts as found, and how it was determined.

    Attributes:
        cosine: the threshold. None means no threshold, or, with the method ``words``, that the
            embedder can read no passage, so that no cosine passes.
        questions: how many questions it was calibrated with.
        passed: the share of questions without an answer that it lets through.
        refused: the share of questions with an answer that it refuses.
        unread: how many questions were left out because the embedder cannot read them.
        unread_passages: how many passages were left out for the same reason.
    """

    method: Literal["labeled", "unrelated", "given", "words", "none"]
    cosine: float | None = None
    questions: int = 0
    passed: float | None = None
    refused: float | None = None
    unread: int = 0
    unread_passages: int = 0

    def passes(self, cosine: float) -> bool:
        """Return whether a question with this cosine of the nearest passage has found anything."""
        return self.method == "none" if self.cosine is None else cosine >= self.cosine

    def summary(self) -> list[str]:
        """Return a description as lines of text."""
        if self.method == "words":
            return ["no threshold: the embedder can read none of the passages; words alone decide"]
        if self.cosine is None:
            return []
        counts = {"questions": self.unread, "passages": self.unread_passages}
        left_out = " and ".join(f"{count} {name}" for name, count in counts.items() if count)
        note = f"; {left_out} that the embedder cannot read are left out" if left_out else ""
        return [f"threshold {self.cosine} ({self.method}){note}"]


def from_labeled(
    cosines: Sequence[float], answerable: Sequence[bool], *, unread: int = 0
) -> Threshold:
    """Return the threshold that separates both kinds of questions best.

    It has the lowest sum of both error rates, and of equal ones it is the lowest, which refuses
    the fewest questions. It lies halfway between two neighboring cosines. ``unread`` questions are
    not part of ``cosines``.

    Raises:
        StageError: one of the two kinds is missing.
    """
    good = [c for c, answered in zip(cosines, answerable, strict=True) if answered]
    bad = [c for c, answered in zip(cosines, answerable, strict=True) if not answered]
    if not good or not bad:
        raise StageError(
            f"the calibration has {len(good)} questions with an answer and {len(bad)} without"
            + (f", not counting {unread} that the embedder cannot read" if unread else ""),
            hint="it needs some of both: answerable: true and answerable: false",
        )
    levels = sorted({*cosines})
    between = [round((low + high) / 2, DIGITS) for low, high in pairwise(levels)]

    def errors(threshold: float) -> float:
        return _share_from(bad, threshold) + 1 - _share_from(good, threshold)

    cosine = min([-1.0, *between, 1.0], key=errors)
    passed, refused = _share_from(bad, cosine), 1 - _share_from(good, cosine)
    return Threshold("labeled", cosine, len(cosines), round(passed, 4), round(refused, 4), unread)


def from_unrelated(cosines: Sequence[float]) -> Threshold:
    """Return the threshold that one in twenty of these unrelated questions passes."""
    allowed = math.floor(len(cosines) * UNRELATED_SHARE)
    highest = sorted(cosines, reverse=True)
    cosine = round(highest[allowed], DIGITS)
    if cosine <= highest[allowed]:  # the question at the limit must not pass
        cosine = round(cosine + 10**-DIGITS, DIGITS)
    return Threshold(
        "unrelated", cosine, len(cosines), passed=round(_share_from(cosines, cosine), 4)
    )


def unrelated_questions() -> tuple[str, ...]:
    """Return questions that hardly any collection of documents answers."""
    text = files("llmpipe.retrieval").joinpath("unrelated_questions.txt").read_text("utf-8")
    return tuple(text.splitlines())


def _share_from(cosines: Sequence[float], threshold: float) -> float:
    return sum(cosine >= threshold for cosine in cosines) / len(cosines)
