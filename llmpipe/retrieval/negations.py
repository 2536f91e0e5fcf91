"""Find negations in a text and the words that they negate.

Not covered: implied negation (*closed* for *not open*) and most negation by word endings.
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
"""Letters that identify a negated word in other forms: *open*, *opens*, *opened*."""
DENSE_STEM = 2
"""The same for scripts in which a letter is a syllable or a word."""

LONGEST_WORD = 40
"""How many characters before a negation are searched for a word."""
REACH = 5
"""How many words after a negation are searched for its verb: *no pets are allowed*."""
VERB_ENDING = 6
"""Most letters between the character of a Japanese verb and its negation."""

_HAN = re.compile(r"[\u3400-\u9fff]")
_CONTRACTED = re.compile(r"(?:(?<=\w)n't|(?<=can)not)\b")
_NO_LONGER = re.compile(r"\b(?:ne |n')((?:\w+ ){1,2})plus\b")
"""French: *n'est plus*."""
_LIMIT = re.compile(r"\bno(?:t)? (?:later|earlier|sooner) than\b")
_DENSE = re.compile("|".join(DENSE_NEGATIONS))
_DENSE_LETTER = re.compile(rf"[{SPACELESS}]")


def spelled_out(text: str) -> str:
    """Return a lowercase text with its contracted negations as words."""
    text = _LIMIT.sub(" ", text)
    return _NO_LONGER.sub(r"\1pas", _CONTRACTED.sub(" not", text))


def negated_stems(text: str) -> list[str]:
    """Return the stem that each negation of a text negates; empty if there is no word beside it.

    Adverbs in between count too: *not usually open* negates both words.
    """
    return [*_negated(plain_words(text)), *_negated_in_dense(text)]


def stem(word: str) -> str:
    """Return the letters that identify a word in other forms."""
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
    """Return the first word that is not an adverb or article, and the adverbs before it."""
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
