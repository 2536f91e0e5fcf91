"""The steps of a curate stage, as specs write them: each form is selected by `step`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Protected = Literal["numbers", "negations", "order"]


class NearDuplicates(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="step",
    tag="near_duplicates",
):  # fmt: skip
    """Drop rows whose words are nearly those of a row that is kept.

    The score is Jaccard's: the different words that two rows share, divided by those of either. The
    longest row is kept, and one that no model generated is preferred.
    """

    threshold: Annotated[float, Meta(ge=0.3, le=1)] = 0.8
    """The score from which a row is dropped. 0.8 lets one word in nine be another one."""
    short: Annotated[int, Meta(ge=1)] = 10
    """Rows with fewer different words than this are dropped only if all their words are equal."""
    leave_out_shared: bool = True
    """Do not compare what many rows share: system messages, prompts and templates. The stage says
    what it left out."""
    protect: tuple[Protected, ...] = ("numbers", "negations", "order")
    """Keep a row that differs in these from the row that it resembles, if their answers differ,
    too."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with a field."""
        if len({*self.protect}) < len(self.protect):
            yield "protect", "names something twice"


class Length(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="step",
    tag="length",
):  # fmt: skip
    """Drop rows that are too short or too long, counted in words."""

    min_words: Annotated[int, Meta(ge=1)] | None = None
    """The fewest words of all turns together."""
    max_words: Annotated[int, Meta(ge=1)] | None = None
    """The most words of all turns together."""
    min_answer_words: Annotated[int, Meta(ge=1)] | None = None
    """The fewest words of the answers together."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with a field."""
        if not (self.min_words or self.max_words or self.min_answer_words):
            yield "step", "has no effect without a limit, such as `max_words`"
        if self.min_words and self.max_words and self.min_words > self.max_words:
            yield "max_words", f"is below min_words ({self.min_words})"


class Decontaminate(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag_field="step",
    tag="decontaminate",
):
    """Drop rows that share runs of words with held-out rows, or contain their questions."""

    against: Annotated[tuple[str, ...], Meta(min_length=1)]
    """The held-out rows: outputs of a format stage, such as `dataset.eval` and `dataset.test`, or
    files. They are only compared with."""
    words: Annotated[int, Meta(ge=3)] = 13
    """Words of a run that a row may not share with a held-out one. A held-out question that has
    fewer may not be contained as a whole."""
    fewest_words: Annotated[int, Meta(ge=1)] = 5
    """Words of a held-out question below which only rows that ask just the same are dropped."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with a field."""
        if self.fewest_words > self.words:
            yield "fewest_words", f"is above words ({self.words})"


Step = NearDuplicates | Decontaminate | Length
