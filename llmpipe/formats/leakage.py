"""Tell when two rows say the same, and when a training row gives a held-out question away.

Two normalisations are used. *Content* (for duplicates): Unicode NFKC, case folded, every run of
white space one space. *Question* (for held-out rows): the same for the user's turns only, and
each word without the punctuation around it. Paraphrases are not covered.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence

from llmpipe.formats.message import Message

PUNCTUATION = ".,;:?!…\"'“”‘’()[]。，？！¿¡"
SHORTEST_QUOTE = 8
"""Words that a held-out question must have for its being quoted inside another to mean anything."""


def normalise(text: str) -> str:
    """Give text as duplicates are compared: NFKC, case folded, white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def content_key(chat: Sequence[Message]) -> bytes:
    """Give 16 bytes that two chats share when their normalised turns are equal."""
    turns = (f"{message['role']}\x1f{normalise(message['content'])}" for message in chat)
    return _digest("\x1e".join(turns))


def question_words(chat: Sequence[Message]) -> list[str]:
    """Give the words that the user says, as questions are compared; of raw text, all words."""
    asked = [message["content"] for message in chat if message["role"] == "user"]
    text = " ".join(asked or [message["content"] for message in chat])
    return [word.strip(PUNCTUATION) or word for word in normalise(text).split()]


def question_key(words: Sequence[str]) -> bytes:
    """Give 16 bytes that two lists of question words share when they are equal."""
    return _digest(" ".join(words))


class QuotedQuestions:
    """An index of held-out questions that tells, in one pass, whether a text quotes one whole."""

    def __init__(self, questions: Iterable[Sequence[str]]) -> None:
        self._by_start: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        for words in questions:
            if len(words) >= SHORTEST_QUOTE:
                start = tuple(words[:SHORTEST_QUOTE])
                self._by_start.setdefault(start, []).append(tuple(words))

    def quoted_in(self, words: Sequence[str]) -> bool:
        """Whether a whole question of eight words or more stands in ``words``, word for word."""
        if not self._by_start:
            return False
        for i in range(len(words) - SHORTEST_QUOTE + 1):
            for question in self._by_start.get(tuple(words[i : i + SHORTEST_QUOTE]), ()):
                if tuple(words[i : i + len(question)]) == question:
                    return True
        return False


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
