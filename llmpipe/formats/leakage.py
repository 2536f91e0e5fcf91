"""Detect when two examples are duplicates, and when a training row leaks a held-out question.

Two normalizations are used. *Content* (for duplicates): Unicode NFKC, case folded, white space
collapsed. *Question* (for held-out rows): the words of the user's turns, NFKC and case folded,
without the punctuation around them. Paraphrases are not covered.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from math import inf
from typing import Any, NamedTuple

import msgspec

from llmpipe.formats.example import Example
from llmpipe.formats.text import Text
from llmpipe.formats.turn import Turn

PUNCTUATION = ".,;:?!…\"'“”‘’()[]。，？！¿¡"
SHORTEST_QUOTE = 8
"""Words that a held-out question must have for its being quoted inside another to mean anything."""


class Compared(NamedTuple):
    """An example as it is compared: the keys of its content and its question, and the question."""

    content: bytes
    question: bytes
    asked: str
    """The words of the question, a space between."""


def compared(example: Example) -> Compared:
    """Return an example as it is compared."""
    turns = example.said()
    texts = [c if isinstance(c := turn.content, str) else turn.text for turn in turns]
    said = [normalize(text) for text in texts]
    asked = [text for turn, text in zip(turns, said, strict=True) if turn.role == "user"]
    question = " ".join(_bare_words(" ".join(asked or said)))
    beside = [_beside(turn) for turn in turns if turn.reasoning_content or turn.tool_calls]
    if not isinstance(example, Text) and example.tools:
        beside.append(_json(example.tools))
    whole = "\x1e".join([*(turn.role for turn in turns), *said, *map(normalize, beside)])
    content = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).digest()[:16]
    return Compared(content, _digest(question), question)


def normalize(text: str) -> str:
    """Return text as duplicates are compared: NFKC, case folded, white space collapsed."""
    if text.isascii():  # most text is, and its other forms need no table
        return " ".join(text.lower().split())
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def content_key(example: Example) -> bytes:
    """Return 16 bytes that are equal for two examples whose normalized content is equal."""
    return compared(example).content


def question_words(example: Example) -> list[str]:
    """Return the words of the prompt, as questions are compared; of raw text, all words."""
    return compared(example).asked.split()


def words_of(text: str) -> list[str]:
    """Return the words of a text as questions are compared."""
    return _bare_words(normalize(text))


def _bare_words(normalized: str) -> list[str]:
    """Return the words of a normalized text, without the punctuation around them."""
    words = normalized.split()
    return [word if word.isalnum() else word.strip(PUNCTUATION) or word for word in words]


def question_key(words: Sequence[str]) -> bytes:
    """Return 16 bytes that two lists of question words share when they are equal."""
    return _digest(" ".join(words))


class QuotedQuestions:
    """An index of held-out questions that finds, in one pass, whether a text quotes a whole one.

    Each question is looked for only in texts that have its rarest word.
    """

    def __init__(self, questions: Iterable[Sequence[str]]) -> None:
        long = [list(words) for words in questions if len(words) >= SHORTEST_QUOTE]
        counts = Counter(word for words in long for word in set(words))
        self._by_word: dict[str, list[tuple[frozenset[str], str]]] = {}
        for words in long:
            rarest = min(words, key=lambda word: (counts[word], word))
            question = frozenset(words), f" {' '.join(words)} "
            self._by_word.setdefault(rarest, []).append(question)
        self.shortest: float = min(map(len, long), default=inf)
        """The number of words of the shortest question in the index."""

    def quoted_in(self, words: Sequence[str]) -> bool:
        """Return whether ``words`` contain a whole question of eight words or more, verbatim."""
        has = set(words)
        for word in self._by_word.keys() & has:
            for needed, question in self._by_word[word]:
                if needed <= has and question in f" {' '.join(words)} ":
                    return True
        return False


def _beside(turn: Turn) -> str:
    """Return a turn's content other than its text, for comparison."""
    thought = f"\x1f{turn.reasoning_content}" if turn.reasoning_content else ""
    return f"{thought}\x1f{_json(turn.tool_calls)}" if turn.tool_calls else thought


def _json(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=float, order="deterministic").decode()


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
