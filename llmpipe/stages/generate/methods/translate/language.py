"""Tell whether a text is in a language, by lingua."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from llmpipe.errors import MissingDependencyError, StageError, did_you_mean
from llmpipe.words import plain_words

if TYPE_CHECKING:
    from lingua import Language, LanguageDetector

PACKAGE = "lingua-language-detector"
FEWEST_WORDS = 4
"""Words from which a language can be told; letters of scripts without spaces count as words."""
NEAR = 0.1
"""The confidence in the wanted language that is enough when a close relative has more: Norwegian
and Danish, or Croatian and Serbian, are told apart by few words."""


def language_named(name: str) -> Language:
    """Return the language of a name in English or of a code of ISO 639: ``German``, ``de``.

    Raises:
        MissingDependencyError: the package is not installed.
        StageError: there is none of that name.
    """
    lingua = _lingua()
    known: dict[str, Language] = {}
    for language in lingua.Language.all():
        codes = (language.iso_code_639_1.name, language.iso_code_639_3.name, language.name)
        known |= {code.lower(): language for code in codes}
    found = known.get(name.strip().lower())
    if found is None:
        names = sorted(language.name.title() for language in lingua.Language.all())
        raise StageError(
            f"`language` is {name!r}, which {PACKAGE} does not know",
            hint=did_you_mean(name.title(), names) or f"it knows {', '.join(names)}",
        )
    return found


def english_name(name: str) -> str:
    """Return a language's name in English."""
    name_of: str = language_named(name).name
    return name_of.title()


def wrong_language(text: str, name: str) -> str | None:
    """Return a text's language if it is not the one named; None if it is, or cannot be told."""
    if len(plain_words(text)) < FEWEST_WORDS:
        return None
    wanted = language_named(name)
    values = _detector().compute_language_confidence_values(text)
    if not values or not values[0].value or values[0].language == wanted:
        return None
    confidence = next(each.value for each in values if each.language == wanted)
    if confidence >= NEAR:
        return None
    return f"{values[0].language.name.title()} ({values[0].value:.2f})"


@cache
def _detector() -> LanguageDetector:
    builder = _lingua().LanguageDetectorBuilder.from_all_languages()
    detector: LanguageDetector = builder.with_low_accuracy_mode().build()
    return detector


def _lingua() -> Any:
    try:
        import lingua
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"languages cannot be told apart: {error.name} is not installed",
            hint="pip install 'llmpipe[curate]'",
        ) from None
    return lingua
