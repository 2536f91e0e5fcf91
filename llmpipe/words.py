"""Split a text into words, in any script, for searches, citations and ROUGE.

A word is a run of Unicode word characters (UTS #18: letters, marks, digits, connectors). Words
joined by punctuation (``foo.bar``, ``e-mail``, ``v1.2.3``), words with signs of their own
(``C++``, ``.NET``) and a number with its unit (``100GB``) are compounds: the whole and its parts
both count. Abbreviations (``U.S.A.``) also count without the dots. Chinese, Japanese, Thai, Lao,
Khmer and Burmese do not put spaces between words: their letters count one by one and in pairs.
Pairs count in Korean words too. Invisible characters, such as a soft hyphen, are removed.

Not covered: dictionaries for languages without spaces; simplified versus traditional Chinese.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from functools import cache, lru_cache, wraps
from itertools import pairwise
from typing import Any, TypeVar

LONGEST_WHOLE = 64
"""The length above which only the parts of a compound count, as in a long address."""

REMEMBERED = 1 << 17
"""The number of words whose results a function caches, since words repeat in a text."""

QUESTION_ENDS = ("?", "？", "؟")
"""Characters that end a question."""

_DENSE = r"\p{Han}\p{Hiragana}\p{Katakana}ー々〆\p{Line_Break=Complex_Context}"
_WORD = rf"[\w--[{_DENSE}]]+(?:\+\+|[+#](?!\w))?"
_JOINT = r"(?:[-.:/@&+#^~'·]{1,3}|(?<=\d),(?=\d)|(?<=\p{Hebrew})\"(?=\p{Hebrew}))"
_PATTERNS = {
    "words": rf"(?P<dense>[{_DENSE}][{_DENSE}\p{{M}}]*)"
    rf"|(?:(?<![[\w--[{_DENSE}]].])(?:\.(?=\p{{L}})|--?|[$@#~]))?{_WORD}(?:{_JOINT}{_WORD})*",
    "dense": rf"[{_DENSE}]",
    "parts": r"[\w--_]+(?:\+\+|[+#](?!\w))?",
    "plain": rf"[{_DENSE}]\p{{M}}*|[\w--[{_DENSE}_]]+",
    "inner": r"(?<=\w)['\"·]+(?=\w)|(?<=\w)-(?=\p{L})|(?<=\p{L})-(?=\w)",
    "abbreviation": r"(?=.*\b\p{L}\b)\p{L}{1,3}(?:\.\p{L}{1,3})+",
    "measure": r"(\d+(?:[.,]\d+)*)(\p{L}[\p{L}\p{M}]*(?:\W.*)?)|(\p{L}{2,})(\d+(?:[.,]\d+)*)",
    "superscript": r"(?<=[\p{L}\p{N}])[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+",
    "thousands": r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))",
    "unseen": r"\u00ad[^\S\n]*\n\s*|[\p{DI}\u0640]+",
    "digit": r"[\p{Nd}--[0-9]]",
    "grouped": r"\d{1,3}(?:[,.]\d{3})+",
    "prefix": r"^(?:[وف]?(?:ال|بال|كال|لل)|ו?[הבכלמש])(?=\p{L}{3})",
    "indic": r"[नम]्(?=\p{L})|ँ",
}
"""Patterns for the package ``regex``, which supports Unicode properties."""

_ALIKE = str.maketrans(
    {"’": "'", "‘": "'", "ʼ": "'", "՚": "'", "׳": "'", "״": '"', "‐": "-", "‑": "-", "−": "-"}
    | {"٫": ".", "٬": ",", "⁄": "/"}
)
_PLAIN_LETTERS = str.maketrans(
    {"œ": "oe", "æ": "ae", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ħ": "h", "ı": "i"}
    | {"ى": "ي", "ة": "ه", "ک": "ك", "ی": "ي"}
)
"""Letters that Unicode does not decompose, with their common plain spellings."""
_TURKISH = str.maketrans({"I": "ı", "İ": "i"})

T = TypeVar("T")


def remembering(function: Callable[[str], T]) -> Callable[[str], T]:
    """Return a cached version of a function of words.

    Long words are not cached, because callers of a service could fill the memory with them.
    """
    remembered = lru_cache(maxsize=REMEMBERED)(function)

    @wraps(function)
    def call(word: str) -> T:
        return remembered(word) if len(word) <= LONGEST_WHOLE else function(word)

    return call


def compounds(text: str, *, turkish: bool = False) -> Iterator[tuple[str, ...]]:
    """Yield the words of a text as tuples; a compound is one tuple, the whole before its parts.

    Args:
        text: Any text.
        turkish: Whether `I` is the capital of `ı`.
    """
    for match in _pattern("words").finditer(folded(text, turkish=turkish)):
        yield _groups(match[0]) if match["dense"] else _compound(match[0])


def plain_words(text: str) -> list[str]:
    """Return only the parts of words, and single letters of scripts without spaces."""
    found: list[str] = _pattern("plain").findall(folded(text))
    return found


def folded(text: str, *, turkish: bool = False) -> str:
    """Normalize case, Unicode variants, digits and invisible characters of a text.

    A superscript stays separate: `10⁶` becomes `10^6`.
    """
    if not text.isascii():
        text = _pattern("superscript").sub(
            lambda match: "^" + unicodedata.normalize("NFKC", match[0]), text
        )
        text = _pattern("thousands").sub(",", text)
        text = "".join(f" {c}" if c in "¼½¾⅓⅔" else c for c in text)
        text = unicodedata.normalize("NFKC", text).translate(_ALIKE)
        text = _pattern("unseen").sub("", text)
        text = _pattern("digit").sub(
            lambda match: str(unicodedata.decimal(match[0], match[0])), text
        )
    if turkish:
        text = text.translate(_TURKISH)
    return text.casefold().replace("i\u0307", "i")


@remembering
def bare(word: str) -> str:
    """Return a folded word without accents and vowel points: `resume` for `résumé`.

    Vowel signs of Indic scripts stay, and so do marks that form a different Japanese or Cyrillic
    letter.
    """
    if word.isascii():
        return word
    plain = "".join(map(_without_accent, word)).translate(_PLAIN_LETTERS)
    return str(_pattern("indic").sub("ं", unicodedata.normalize("NFC", plain)))


def unprefixed(word: str) -> str:
    """Return an Arabic or Hebrew word without its attached article or particle."""
    return word if word.isascii() else str(_pattern("prefix").sub("", word))


def sets_spaces(text: str) -> bool:
    """Return whether all scripts of a text put spaces between words."""
    return not _pattern("dense").search(text)


@cache
def _pattern(name: str) -> Any:
    import regex

    return regex.compile(_PATTERNS[name], regex.V1)


def _without_accent(letter: str) -> str:
    if letter == "й":  # no и with an accent
        return letter
    return "".join(sign for sign in unicodedata.normalize("NFD", letter) if not _is_accent(sign))


def _is_accent(sign: str) -> bool:
    """Return whether a sign is an accent, point or nukta; the voicing of kana, class 8, is not."""
    kind = unicodedata.combining(sign)
    return kind == 7 or 10 <= kind <= 36 or kind >= 200


def _groups(run: str) -> tuple[str, ...]:
    """Return single letters and pairs of them, each with its marks."""
    letters = _pattern("plain").findall(run)
    return (*letters, *map("".join, pairwise(letters)))


@remembering
def _compound(text: str) -> tuple[str, ...]:
    if text.isascii() and (text.isalpha() or text.isdigit()):
        return (text,)
    parts = _pattern("parts").findall(text)
    wholes = [_pattern("inner").sub("", text)] if len(text) <= LONGEST_WHOLE else []
    if _pattern("grouped").fullmatch(text):
        wholes.append(text.replace(",", "").replace(".", ""))
    if _pattern("abbreviation").fullmatch(text):
        wholes.append(text.replace(".", ""))
    if text[:1] == "v" and text[1:2].isdigit():
        wholes.append(text[1:])
    if "^" in text and text[0].isalpha():  # people search m² as m2; 10⁶ is not 106
        wholes.append(text.replace("^", ""))
    if "'" in text:  # the rest of l'eau, don't and İzmir'de
        parts = [part for part in parts if len(part) > 1]
    bases = [part.rstrip("+#") for part in parts]
    hangul = [pair for part in parts for pair in _hangul_pairs(part)]
    apart = [form for part in _number_and_unit(text) for form in _compound(part)]
    return tuple(dict.fromkeys(filter(None, (*wholes, *parts, *bases, *hangul, *apart))))


def _number_and_unit(text: str) -> Iterator[str]:
    """Yield a number and its unit separately, in either order."""
    if measure := _pattern("measure").fullmatch(text):
        yield from filter(None, measure.groups())


def _hangul_pairs(word: str) -> Iterator[str]:
    if "가" <= word[0] <= "힣":
        yield from map("".join, pairwise(word))
