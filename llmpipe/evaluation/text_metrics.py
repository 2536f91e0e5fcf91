"""Compare an answer with its reference: ROUGE-L, token F1, exact match, JSON match; 0 to 1.

Not covered: meaning. A right answer in other words has a low score on all of them.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from functools import cache
from typing import Any

from llmpipe.errors import MissingDependencyError
from llmpipe.words import plain_words

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


class _WordTokenizer:
    """Splits text like rouge-score's own tokenizer, but not only ASCII."""

    def tokenize(self, text: str) -> list[str]:
        return plain_words(text)


def require_rouge() -> None:
    """Check that ROUGE-L can be computed, before answers are paid for.

    Raises:
        MissingDependencyError: the package is not installed.
    """
    _rouge_scorer()


def rouge_l(reference: str, answer: str) -> float:
    """Return the F-measure of ROUGE-L: the longest common subsequence of case-folded words.

    A reference without words is compared by `exact_match`.
    """
    if not _WordTokenizer().tokenize(reference):
        return exact_match(reference, answer)
    return float(_rouge_scorer().score(reference, answer)["rougeL"].fmeasure)


def exact_match(reference: str, answer: str) -> float:
    """Return 1.0 if the texts are equal except for surrounding whitespace, else 0.0."""
    return float(reference.strip() == answer.strip())


def token_f1(reference: str, answer: str) -> float:
    """Return the F1 of the words that the texts share, with multiplicity.

    Words are those of SQuAD's evaluation (Rajpurkar et al. 2016): lowercase, without ASCII
    punctuation and English articles. If a text has no words, the score is 1 only if both have none.
    """
    expected, given = Counter(_squad_words(reference)), Counter(_squad_words(answer))
    if not expected or not given:
        return float(expected == given)
    shared = (expected & given).total()
    return 2 * shared / (expected.total() + given.total())


def json_match(reference: str, answer: str) -> float:
    """Return 1.0 if the answer is JSON and equals the reference except for layout and key order.

    Raises:
        ValueError: the reference is not JSON.
    """
    expected = _canonical(json.loads(reference))
    try:
        return float(_canonical(json.loads(answer)) == expected)
    except (ValueError, RecursionError):
        return 0.0


def _squad_words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)  # compare as text: in Python, 1 == 1.0 == True


@cache
def _rouge_scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"ROUGE-L cannot be computed: {error.name} is not installed",
            hint="pip install 'llmpipe[evaluate]'",
        ) from None
    return RougeScorer(["rougeL"], tokenizer=_WordTokenizer())
