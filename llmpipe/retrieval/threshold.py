"""When a search has found nothing: a threshold on the cosine of the nearest passage.

With labelled questions, the threshold is the one that tells those with an answer in the documents
from those without best. Without any, everyday questions of many fields are asked which hardly any
collection answers: the threshold is the cosine that one in twenty of them exceeds. So about one
unrelated question in twenty still reaches the model, and a collection that is about one of the
fields loses nothing, as three of the sixty may be answered by it.

Passages and questions that the embedder cannot read have no part in it: their cosines tell nothing.
A hybrid search judges them by their words, see `llmpipe.retrieval.search.ENOUGH`. In the mode
``bm25`` only a search that finds no passage at all has found nothing.
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
"""Share of the unrelated questions that the threshold lets through."""
DIGITS = 4
"""Decimals of a threshold: no cosine is more exact than that on another machine."""


class Threshold(msgspec.Struct, frozen=True):
    """The lowest cosine that counts as found, and how it was come by.

    ``cosine`` is None where only words are searched, with the method ``words`` because the embedder
    reads no passage: no cosine passes then. ``passed`` is the share of questions without an answer
    that it lets through, ``refused`` the share of questions with an answer that it holds back; both
    are of the questions it was calibrated by. ``unread`` questions and ``unread_passages`` had no
    part in it.
    """

    method: Literal["labelled", "unrelated", "given", "words", "none"]
    cosine: float | None = None
    questions: int = 0
    passed: float | None = None
    refused: float | None = None
    unread: int = 0
    unread_passages: int = 0

    def passes(self, cosine: float) -> bool:
        """Tell whether a question whose nearest passage has this cosine has found anything."""
        return self.method == "none" if self.cosine is None else cosine >= self.cosine

    def summary(self) -> list[str]:
        """Return what there is to say of it as lines of text."""
        if self.method == "words":
            return ["no threshold: the embedder can read none of the passages; words alone decide"]
        if self.cosine is None:
            return []
        counts = {"questions": self.unread, "passages": self.unread_passages}
        left_out = " and ".join(f"{count} {name}" for name, count in counts.items() if count)
        told = f"; {left_out} that the embedder cannot read are left out" if left_out else ""
        return [f"threshold {self.cosine} ({self.method}){told}"]


def from_labelled(
    cosines: Sequence[float], answerable: Sequence[bool], *, unread: int = 0
) -> Threshold:
    """Give the threshold that tells both kinds of questions apart best.

    That is the one whose two error rates are least together; of equals the lowest, which refuses
    fewest questions. It lies halfway between the two cosines next to it. ``unread`` questions are
    not among them.

    Raises:
        StageError: one of the two kinds is missing.
    """
    good = [c for c, answered in zip(cosines, answerable, strict=True) if answered]
    bad = [c for c, answered in zip(cosines, answerable, strict=True) if not answered]
    if not good or not bad:
        raise StageError(
            f"the calibration has {len(good)} questions with an answer and {len(bad)} without"
            + (f", {unread} that the embedder cannot read aside" if unread else ""),
            hint="it needs some of both, as answerable: true and answerable: false",
        )
    levels = sorted({*cosines})
    between = [round((low + high) / 2, DIGITS) for low, high in pairwise(levels)]

    def errors(threshold: float) -> float:
        return _share_from(bad, threshold) + 1 - _share_from(good, threshold)

    cosine = min([-1.0, *between, 1.0], key=errors)
    passed, refused = _share_from(bad, cosine), 1 - _share_from(good, cosine)
    return Threshold("labelled", cosine, len(cosines), round(passed, 4), round(refused, 4), unread)


def from_unrelated(cosines: Sequence[float]) -> Threshold:
    """Give the threshold that one in twenty of these cosines, of unrelated questions, passes."""
    allowed = math.floor(len(cosines) * UNRELATED_SHARE)
    highest = sorted(cosines, reverse=True)
    cosine = round(highest[allowed], DIGITS)
    if cosine <= highest[allowed]:  # it must not pass itself
        cosine = round(cosine + 10**-DIGITS, DIGITS)
    return Threshold(
        "unrelated", cosine, len(cosines), passed=round(_share_from(cosines, cosine), 4)
    )


def unrelated_questions() -> tuple[str, ...]:
    """Give the questions that hardly any collection of documents answers."""
    text = files("llmpipe.retrieval").joinpath("unrelated_questions.txt").read_text("utf-8")
    return tuple(text.splitlines())


def _share_from(cosines: Sequence[float], threshold: float) -> float:
    return sum(cosine >= threshold for cosine in cosines) / len(cosines)
