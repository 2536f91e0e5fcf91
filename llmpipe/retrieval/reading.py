"""Measure how much of a text an embedder can read: its tokenizer may not know words or scripts.

All words that a tokenizer does not know share one token, so the model cannot tell them apart. If it
knows the letters of a script but none of the words, it splits words into letters, which tell little
about the meaning. Byte-level tokenizers know every text, and split unknown words into bytes.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from llmpipe.words import sets_spaces

WARN = 0.05
"""Share of unknown tokens from which on a warning is shown."""
UNREAD = 0.5
"""Share of unknown tokens from which on a text counts as unreadable for the embedder."""
SHORTEST_WORD = 3
"""Fewest letters of a word that counts as spelled: a one-letter token may be a word."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a tokenizer splits a text: counts of tokens and of the letters that they cover."""

    tokens: int = 0
    unknown_tokens: int = 0
    letters: int = 0
    unknown_letters: int = 0
    words: int = 0
    """Letters of words that could be spelled, in scripts that put spaces between words."""
    spelled: int = 0
    """Those of them that are tokens of their own."""

    def __add__(self, other: Reading) -> Reading:
        return Reading(*(a + b for a, b in zip(self._counts(), other._counts(), strict=True)))

    def _counts(self) -> tuple[int, ...]:
        return (
            self.tokens, self.unknown_tokens, self.letters, self.unknown_letters, self.words,
            self.spelled,
        )  # fmt: skip

    @property
    def unknown_share(self) -> float:
        """Share of unknown tokens, or of the letters in them if that is higher.

        A sentence in a script without spaces may be a single token.
        """
        of_tokens = self.unknown_tokens / self.tokens if self.tokens else 0.0
        of_letters = self.unknown_letters / self.letters if self.letters else 0.0
        return max(of_tokens, of_letters)

    @property
    def spelled_share(self) -> float:
        """Share of letters that are read one by one."""
        return self.spelled / self.words if self.words else 0.0

    @property
    def unread(self) -> bool:
        """Whether the embedder cannot read the text."""
        return self.unknown_share >= UNREAD

    @property
    def weight(self) -> float:
        """Weight of the vector score beside the words, from 0 to 1.

        It is 0 for an unreadable text and one half for a spelled one.
        """
        if self.unread:
            return 0.0
        return 0.5 if self.spelled_share >= UNREAD else 1.0


class Reader:
    """Reads texts as an embedder does; ``tokenizer`` comes from the ``tokenizers`` library."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._unknown = _unknown_id(tokenizer)

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Return how each text is read, without special tokens."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [self._reading(text, one) for text, one in zip(texts, encodings, strict=True)]

    def _reading(self, text: str, encoding: Any) -> Reading:
        ids, spans = encoding.ids, encoding.offsets
        pairs = zip(ids, spans, strict=True)
        unknown = [end - start for token, (start, end) in pairs if token == self._unknown]
        words, spelled = (0, 0) if text.isascii() else _spelled(text, encoding.word_ids, spans)
        letters = sum(end - start for start, end in spans)
        return Reading(len(ids), len(unknown), letters, sum(unknown), words, spelled)


def _unknown_id(tokenizer: Any) -> int | None:
    """Return the id of the unknown token; None if the tokenizer knows everything."""
    token = getattr(tokenizer.model, "unk_token", None)
    if token is not None:
        found: int | None = tokenizer.token_to_id(token)
        return found
    if type(tokenizer.model).__name__ != "Unigram":
        return None
    unknown: int | None = json.loads(tokenizer.to_str())["model"].get("unk_id")
    return unknown


def _spelled(
    text: str, words: Sequence[int | None], spans: Sequence[tuple[int, int]]
) -> tuple[int, int]:
    """Count the letters of words, and those of them that are tokens of their own."""
    letters = alone = 0
    for _, places in groupby(range(len(spans)), lambda place: words[place]):
        tokens = [text[slice(*spans[place])].strip() for place in places]
        word = "".join(tokens)
        if len(word) >= SHORTEST_WORD and _is_of_letters(word) and sets_spaces(word):
            letters += len(word)
            alone += sum(len(token) == 1 for token in tokens)
    return letters, alone


def _is_of_letters(word: str) -> bool:
    return all(unicodedata.category(sign)[0] in "LM" for sign in word)
