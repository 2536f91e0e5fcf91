"""Negations in a text, and the words that they negate.

Not covered: what is only meant (*closed* for *not open*), most negation by the endings of words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from llmpipe.retrieval.fact_words import (
    ADVERB_ENDINGS,
    CARRIERS,
    DENSE_NEGATIONS,
    NEGATED_BEFORE,
    NEGATIONS,
    NOT_ONLY,
    PASSED_OVER,
)
from llmpipe.retrieval.number_words import SPACELESS
from llmpipe.words import plain_words

STEM = 4
"""Letters by which a negated word is known again: *open*, *opens*, *opened*."""
DENSE_STEM = 2
"""The same where a letter is a syllable or a word."""

LONGEST_WORD = 40
"""Characters in which the word before a negation is looked for."""
REACH = 5
"""Words after a negation in which it reaches what carries it: *no pets are allowed*."""
VERB_ENDING = 6
"""Letters between a Japanese verb's sign and its negation, at most."""

_HAN = re.compile(r"[\u3400-\u9fff]")
_CONTRACTED = re.compile(r"(?:(?<=\w)n't|(?<=can)not)\b")
_NO_LONGER = re.compile(r"\b(?:ne |n')((?:\w+ ){1,2})plus\b")
"""French: *n'est plus*."""
_LIMIT = re.compile(r"\bno(?:t)? (?:later|earlier|sooner) than\b")
_DENSE = re.compile("|".join(DENSE_NEGATIONS))
_DENSE_LETTER = re.compile(rf"[{SPACELESS}]")


def spelled_out(text: str) -> str:
    """Return a text in small letters with its contracted negations as words."""
    text = _LIMIT.sub(" ", text)
    return _NO_LONGER.sub(r"\1pas", _CONTRACTED.sub(" not", text))


def negated_stems(text: str) -> list[str]:
    """Return the stems of what each negation of a text negates; empty for one beside no word.

    An adverb between counts too: *not usually open* negates both of the words.
    """
    return [*_negated(plain_words(text)), *_negated_in_dense(text)]


def stem(word: str) -> str:
    """Return the letters by which a word is known again."""
    return word[: DENSE_STEM if _DENSE_LETTER.match(word) else STEM]


def _negated(words: Sequence[str]) -> Iterator[str]:
    for at, word in enumerate(words):
        if word not in NEGATIONS:
            continue
        beside = words[:at][::-1] if word in NEGATED_BEFORE else words[at + 1 :]
        passed, negated = _first_that_counts(beside)
        is_number = word == "no" and negated.isdigit()  # no. 5
        if negated in NOT_ONLY or is_number:
            continue
        yield stem(negated)
        yield from map(stem, passed)
        yield from (stem(other) for other in beside[:REACH] if stem(other) in CARRIERS)


def _first_that_counts(words: Sequence[str]) -> tuple[list[str], str]:
    """Return the adverbs before the first word that is neither an adverb nor an article, and it."""
    passed = []
    for word in words:
        if word.endswith(ADVERB_ENDINGS) and len(word) > STEM:
            passed.append(word)
        elif word not in PASSED_OVER:
            return passed, word
    return passed, ""


def _negated_in_dense(text: str) -> Iterator[str]:
    for match in _DENSE.finditer(text):
        if match[0] in NEGATED_BEFORE:
            before = text[max(0, match.start() - LONGEST_WORD) : match.start()]
            beside = _HAN.findall(before[-VERB_ENDING:])[-1:] or plain_words(before)[-1:]
        else:
            beside = plain_words(text[match.end() :][:STEM])[:1]
        yield stem("".join(beside))
