"""Tell when two examples say the same, and when a training row gives a held-out question away.

Two normalisations are used. *Content* (for duplicates): Unicode NFKC, case folded, every run of
white space one space. *Question* (for held-out rows): the same for the user's turns only, and
each word without the punctuation around it. Paraphrases are not covered.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from math import inf
from typing import Any

import msgspec

from llmpipe.formats.example import Example
from llmpipe.formats.text import Text
from llmpipe.formats.turn import Turn

PUNCTUATION = ".,;:?!…\"'“”‘’()[]。，？！¿¡"
SHORTEST_QUOTE = 8
"""Words that a held-out question must have for its being quoted inside another to mean anything."""


def normalise(text: str) -> str:
    """Return text as duplicates are compared: NFKC, case folded, white space collapsed."""
    if text.isascii():  # most text is, and its other forms need no table
        return " ".join(text.lower().split())
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def content_key(example: Example) -> bytes:
    """Return 16 bytes that two examples share when all that they say is equal, normalised."""
    texts = [_turn_text(turn) for turn in example.said()]
    if not isinstance(example, Text) and example.tools:
        texts.append(_json(example.tools))
    return _digest("\x1e".join(texts))


def question_words(example: Example) -> list[str]:
    """Return the words of the prompt, as questions are compared; of raw text, all words."""
    asked = example.prompt() or example.said()
    return words_of(" ".join([turn.text for turn in asked]))


def words_of(text: str) -> list[str]:
    """Return the words of a text as questions are compared."""
    return [word.strip(PUNCTUATION) or word for word in normalise(text).split()]


def question_key(words: Sequence[str]) -> bytes:
    """Return 16 bytes that two lists of question words share when they are equal."""
    return _digest(" ".join(words))


class QuotedQuestions:
    """An index of held-out questions that tells, in one pass, whether a text quotes one whole.

    Each question is looked for only in texts that have its rarest word.
    """

    def __init__(self, questions: Iterable[Sequence[str]]) -> None:
        long = [list(words) for words in questions if len(words) >= SHORTEST_QUOTE]
        counts = Counter(word for words in long for word in set(words))
        self._by_word: dict[str, list[str]] = {}
        for words in long:
            rarest = min(words, key=lambda word: (counts[word], word))
            self._by_word.setdefault(rarest, []).append(f" {' '.join(words)} ")
        self.shortest: float = min(map(len, long), default=inf)
        """The number of words of the shortest question in the index."""

    def quoted_in(self, words: Sequence[str]) -> bool:
        """Whether a whole question of eight words or more stands in ``words``, word for word."""
        found = self._by_word.keys() & set(words)
        if not found:
            return False
        text = f" {' '.join(words)} "
        return any(question in text for word in found for question in self._by_word[word])


def _turn_text(turn: Turn) -> str:
    text = f"{turn.role}\x1f{normalise(turn.text)}"
    if turn.reasoning_content:
        text += f"\x1f{normalise(turn.reasoning_content)}"
    return f"{text}\x1f{_json(turn.tool_calls)}" if turn.tool_calls else text


def _json(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=float, order="deterministic").decode()


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
