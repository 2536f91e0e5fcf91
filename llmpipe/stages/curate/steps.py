"""The steps of a curate stage, as specs write them: each form is selected by `step`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Protected = Literal["numbers", "negations", "order"]


class _Step(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="step"
):
    """A step of a curate stage."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with a field."""
        yield from ()


class NearDuplicates(_Step, frozen=True, kw_only=True, tag="near_duplicates"):
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
    too. Rows with other tools, or with another label, are always kept."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with a field."""
        if len({*self.protect}) < len(self.protect):
            yield "protect", "names something twice"


class Length(_Step, frozen=True, kw_only=True, tag="length"):
    """Drop rows that are too short or too long, counted in words."""

    min_words: Annotated[int, Meta(ge=1)] | None = None
    """The fewest words of all turns together."""
    max_words: Annotated[int, Meta(ge=1)] | None = None
    """The most words of all turns together."""
    min_answer_words: Annotated[int, Meta(ge=1)] | None = None
    """The fewest words of the answers together. Not beside `columns`."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with a field."""
        if not (self.min_words or self.max_words or self.min_answer_words):
            yield "step", "has no effect without a limit, such as `max_words`"
        if self.min_words and self.max_words and self.min_words > self.max_words:
            yield "max_words", f"is below min_words ({self.min_words})"


class Decontaminate(_Step, frozen=True, kw_only=True, tag="decontaminate"):
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


class Encoding(_Step, frozen=True, kw_only=True, tag="encoding"):
    """Drop rows whose text was damaged: replacement characters, NULs and other control characters,
    lone surrogates, and UTF-8 that was read as another encoding (`Ã©` for `é`).
    """

    most: Annotated[int, Meta(ge=0)] = 0
    """The most damaged places of a row that is kept."""


class Repetition(_Step, frozen=True, kw_only=True, tag="repetition"):
    """Drop rows in which a turn repeats itself."""

    words: Annotated[int, Meta(ge=2)] = 5
    """Words of a run that counts as repeated if the turn had it before."""
    most: Annotated[float, Meta(ge=0, lt=1)] = 0.3
    """The largest share of a turn's runs that may be repeated."""
    fewest_words: Annotated[int, Meta(ge=1)] = 20
    """Turns with fewer words than this are not looked at."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with a field."""
        if self.fewest_words < self.words:
            yield "fewest_words", f"is below words ({self.words})"


class Refusals(_Step, frozen=True, kw_only=True, tag="refusals"):
    """Drop rows with an answer that refuses, or that speaks of itself as a language model. Phrases
    of English, German, French, Spanish, Italian, Portuguese, Dutch, Russian and Chinese are known.
    The rejected answer of a pair, and one that is labeled as bad, may refuse. Not beside `columns`.
    """

    begin: Annotated[int, Meta(ge=1)] = 200
    """Letters at the beginning of an answer, behind its thoughts, in which a refusal counts. What
    speaks of itself as a language model counts anywhere."""
    phrases: tuple[Annotated[str, Meta(min_length=3)], ...] = ()
    """Further phrases that count anywhere in an answer, without case."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with a field."""
        if any(not phrase.strip() for phrase in self.phrases):
            yield "phrases", "has a blank phrase, which is in every answer"


Step = NearDuplicates | Decontaminate | Length | Encoding | Repetition | Refusals
