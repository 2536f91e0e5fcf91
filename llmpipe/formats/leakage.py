"""Detect when two examples are duplicates, and when a training row leaks a held-out question.

Two normalizations are used. *Content* (for duplicates): Unicode NFKC, case folded, white space
collapsed. *Question* (for held-out rows): the words of the user's turns, NFKC and case folded,
without the punctuation around them. Paraphrases are not covered.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b, sha256
from itertools import accumulate
from struct import Struct
from typing import Any

import msgspec

from llmpipe.formats.example import Example
from llmpipe.formats.text import Text
from llmpipe.formats.turn import Turn

PUNCTUATION = ".,;:?!…\"'“”‘’()[]。，？！¿¡"
SHORTEST_QUOTE = 8
"""Words that a held-out question must have for its being quoted inside another to mean anything."""

KEY = 16
"""Bytes of the key of a question or a content."""

PIECE = 16
"""Bytes of a text that are looked up together for what it quotes."""

_TOGETHER = 512
"""Pieces that are looked up in one step."""

_MARKS = PUNCTUATION.encode("ascii", "ignore")
_PLAIN = bytes(code for code in range(128) if not chr(code).isspace() and code not in _MARKS) + b" "
"""ASCII that needs no second look, as long as each space stands alone between two words."""
_SPACED = bytes(32 if chr(code).isspace() else code for code in range(128)) + bytes(range(128, 256))
"""Makes a space of all white space of ASCII, of which `bytes.split` knows only a part."""


def normalize(text: str) -> str:
    """Return text as duplicates are compared: NFKC, case folded, white space collapsed."""
    if text.isascii():  # most text is, and its other forms need no table
        return " ".join(text.lower().split())
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def content_key(example: Example) -> bytes:
    """Return 16 bytes that are equal for two examples whose normalized content is equal.

    The question's words are then equal, too.
    """
    turns = example.said()
    said = [normalize(turn.text) for turn in turns]
    beside = [_beside(turn) for turn in turns if turn.reasoning_content or turn.tool_calls]
    if not isinstance(example, Text) and example.tools:
        beside.append(_json(example.tools))
    return _digest("\x1e".join([*(turn.role for turn in turns), *said, *map(normalize, beside)]))


def asked_in(example: Example, *, with_system: bool = False) -> list[str]:
    """Return the texts that ask: what the user says, or all of an example without a user.

    ``with_system`` puts the system message before what the user says.
    """
    turns = example.said()
    if not any(turn.role == "user" for turn in turns):
        return [turn.text for turn in turns]
    asking = ("system", "user") if with_system else ("user",)
    return [turn.text for turn in turns if turn.role in asking]


def words_of(texts: Sequence[str]) -> bytes:
    """Return the words of texts as questions are compared, a space between."""
    text = "\n".join(texts)
    if text.isascii():
        bare = text.lower().encode().strip(_MARKS)
        if b"\n" in bare:
            bare = b" ".join([line.strip(_MARKS) for line in bare.split(b"\n")])
        is_spaced = bare.strip(b" ") == bare and bare.rfind(b"  ") < 0  # a third less than `in`
        if bare and is_spaced and not bare.translate(None, _PLAIN):
            return bare
        spaced = text.lower().encode().translate(_SPACED)
        return b" ".join([word.strip(_MARKS) or word for word in spaced.split()])
    words = [word for text in texts for word in normalize(text).split()]
    bare_words = [word if word.isalnum() else word.strip(PUNCTUATION) or word for word in words]
    return " ".join(bare_words).encode("utf-8", "surrogatepass")


def question_key(words: bytes) -> bytes:
    """Return 16 bytes that questions share when their words are equal."""
    return blake2b(words, digest_size=KEY).digest()


class QuotedQuestions:
    """An index of held-out questions that finds which texts quote a whole one.

    Texts are cut into pieces of equal length. Any stretch of nearly two pieces contains a whole
    piece, wherever a text was cut. Of each question such a stretch, the one around its rarest word,
    is looked for, and a text that has a piece of it is compared word by word.
    """

    def __init__(self, questions: Iterable[bytes]) -> None:
        long = [words for words in questions if words.count(b" ") + 1 >= SHORTEST_QUOTE]
        counts = Counter(word for words in long for word in set(words.split(b" ")))
        self._size = min([PIECE, *((len(words) + 1) // 2 for words in long)])
        self._many = Struct(f"{self._size}s" * _TOGETHER)
        self._pieces: set[bytes] = set()
        self._by_word: dict[bytes, list[bytes]] = {}
        for words in long:
            rarest = min(words.split(b" "), key=counts.__getitem__)
            self._by_word.setdefault(rarest, []).append(b" %b " % words)
            self._pieces.update(self._pieces_around(words, rarest))

    def _pieces_around(self, words: bytes, rarest: bytes) -> list[bytes]:
        size = self._size
        middle = (b" %b " % words).index(b" %b " % rarest) + len(rarest) // 2
        start = max(0, min(middle - size + 1, len(words) - 2 * size + 1))
        return [words[i : i + size] for i in range(start, start + size)]

    def quoting(self, texts: Sequence[bytes]) -> set[int]:
        """Return which texts contain a whole question of eight words or more, verbatim.

        Args:
            texts: texts as `words_of` returns them.
        """
        size, whole = self._size, b"\n".join(texts)
        many = self._many
        whole += bytes(-len(whole) % many.size)
        near: set[int] = set()
        ends: list[int] = []
        for start, pieces in enumerate(many.iter_unpack(whole)):
            if not self._pieces.isdisjoint(pieces):
                ends = ends or list(accumulate(len(text) + 1 for text in texts))
                found = (at for at, piece in enumerate(pieces) if piece in self._pieces)
                near.update(bisect_right(ends, start * many.size + at * size) for at in found)
        return {number for number in near if self._quotes(texts[number])}

    def _quotes(self, text: bytes) -> bool:
        held = self._by_word.keys() & text.split(b" ")
        padded = b" %b " % text
        return any(words in padded for word in held for words in self._by_word[word])


def _beside(turn: Turn) -> str:
    """Return a turn's content other than its text, for comparison."""
    thought = f"\x1f{turn.reasoning_content}" if turn.reasoning_content else ""
    return f"{thought}\x1f{_json(turn.tool_calls)}" if turn.tool_calls else thought


def _json(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=float, order="deterministic").decode()


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()[:KEY]
