"""The steps of a curate stage, as specs write them: each form is selected by `step`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

Protected = Literal["numbers", "negations", "order"]
Action = Literal["drop", "redact"]
LanguageCode = Literal[
    "af", "ar", "az", "be", "bg", "bn", "bs", "ca", "cs", "cy", "da", "de", "el", "en", "eo",
    "es", "et", "eu", "fa", "fi", "fr", "ga", "gu", "he", "hi", "hr", "hu", "hy", "id", "is",
    "it", "ja", "ka", "kk", "ko", "la", "lg", "lt", "lv", "mi", "mk", "mn", "mr", "ms", "nb",
    "nl", "nn", "pa", "pl", "pt", "ro", "ru", "sk", "sl", "sn", "so", "sq", "sr", "st", "sv",
    "sw", "ta", "te", "th", "tl", "tn", "tr", "ts", "uk", "ur", "vi", "xh", "yo", "zh", "zu",
]  # fmt: skip
"""The ISO 639-1 codes of the languages that lingua knows."""
SecretKind = Literal[
    "anthropic_key", "aws_key", "azure_storage_key", "basic_auth", "discord_token", "github_token",
    "gitlab_token", "google_key", "huggingface_token", "jwt", "mailchimp_key", "npm_token",
    "openai_key", "private_key", "pypi_token", "sendgrid_key", "slack_token", "square_key",
    "stripe_key", "telegram_token", "twilio_key",
]  # fmt: skip
SECRETS: tuple[SecretKind, ...] = get_args(SecretKind)


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


class Language(_Step, frozen=True, kw_only=True, tag="language"):
    """Drop rows with a turn in a language that is not allowed.

    The turns of the user and the assistant are looked at, each by itself and without its code. A
    language is told from all others that `lingua` knows, not only from those that are allowed.
    """

    allowed: Annotated[tuple[LanguageCode, ...], Meta(min_length=1)]
    """The languages that a row may have, as ISO 639-1 codes, such as `en` and `de`. Allow close
    relatives of a language as well, such as `nb` and `da`, where rows in them do no harm."""
    least: Annotated[float, Meta(gt=0, le=1)] = 0.5
    """The share of confidence that the allowed languages need together."""
    fewest_words: Annotated[int, Meta(ge=1)] = 6
    """Turns with fewer words than this are not looked at: they are too short to tell."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with a field."""
        if len({*self.allowed}) < len(self.allowed):
            yield "allowed", "names something twice"


class Secrets(_Step, frozen=True, kw_only=True, tag="secrets"):
    """Drop rows with passwords, keys and tokens, or make these unreadable.

    Every text of a row is looked at, code as well. What was found is written nowhere: the rows
    among the rejects have `[github_token]` in its place.
    """

    action: Action = "drop"
    """`drop` the row, or `redact` what was found and keep the row."""
    kinds: Annotated[tuple[SecretKind, ...], Meta(min_length=1)] = SECRETS
    """What to look for. Each kind has a form of its own, so that ordinary text is seldom taken for
    it."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with a field."""
        if len({*self.kinds}) < len(self.kinds):
            yield "kinds", "names something twice"


class Schema(_Step, frozen=True, kw_only=True, tag="schema"):
    """Drop rows that a JSON Schema does not accept."""

    schema: dict[str, Any]
    """The schema, of draft 2020-12. It may not refer to other files."""
    column: Annotated[str, Meta(min_length=1)] | None = None
    """The column that it describes; JSON in a text is read. By default, the whole row, without its
    provenance."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with a field."""
        from llmpipe.formats.json_schema import schema_problem

        told = schema_problem(self.schema)
        if told:
            yield "schema", told


class Balance(_Step, frozen=True, kw_only=True, tag="balance"):
    """Drop rows of the most frequent values of a column, such as a category or a source."""

    column: Annotated[str, Meta(min_length=1)]
    """The column. Rows without it have the value null."""
    most: Annotated[int, Meta(ge=1)] | None = None
    """The most rows of a value."""
    times: Annotated[float, Meta(ge=1)] | None = None
    """The most rows of a value, as a multiple of the rows of the rarest one."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with a field."""
        if (self.most is None) == (self.times is None):
            yield "most", "needs a number here or in `times`, and not in both"


Step = (
    NearDuplicates | Decontaminate | Length | Encoding | Repetition | Refusals
    | Language | Secrets | Schema | Balance
)  # fmt: skip
