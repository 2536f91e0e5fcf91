"""Powers, indices and note marks of a PDF's page, which has only places and sizes of letters."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

from llmpipe.documents import notation

SMALLER = (0.4, 0.87)
"""The size of a script's letters as a share of the size of the letter before them."""

HIGHER = (0.12, 0.9)
"""How far a superscript is above its line, as a share of the size of the line's letters."""

LOWER = (-0.6, -0.04)
"""The same of a subscript."""

SAME_LINE = 0.1
"""Points by which baselines of one line differ at most."""

NEAR = 80
"""Characters before a script that tell what it is."""

_FROM_DIGIT = re.compile(r"\d\S*")
_DIGITS = re.compile(r"\d+")


class Letter(NamedTuple):
    """Where a letter stands: its baseline and its size, in points."""

    baseline: float
    size: float


class Script(NamedTuple):
    """Where a superscript (``sup``) or subscript (``sub``) begins and ends in a text."""

    start: int
    end: int
    kind: str


class Letters:
    """The letters of a page as pdfium places them."""

    def __init__(self, found: Any) -> None:
        import pypdfium2.raw

        self._found, self._pdfium = found.raw, pypdfium2.raw
        self._x, self._y = ctypes.c_double(), ctypes.c_double()
        self._matrix = pypdfium2.raw.FS_MATRIX()

    def baseline(self, at: int) -> float:
        """Return how high a letter stands on its page."""
        self._pdfium.FPDFText_GetCharOrigin(self._found, at, self._x, self._y)
        return self._y.value

    def at(self, at: int) -> Letter:
        """Return the place and size of a letter; the size in a font may be scaled on the page."""
        size = self._pdfium.FPDFText_GetFontSize(self._found, at)
        has_matrix = self._pdfium.FPDFText_GetMatrix(self._found, at, self._matrix)
        return Letter(self.baseline(at), size * abs(self._matrix.d if has_matrix else 1))


def marked(found: Any, shown: str) -> str:
    """Write what stands above or below the lines of a page as text in its place.

    Only words with a digit in them are looked at: there it changes what is read (10²³ is not 1023).

    Args:
        found: pdfium's text page.
        shown: the text of it that lies on the page, as pdfium gives it.
    """
    whole = found.get_text_range()
    if len(whole) != found.count_chars():  # letters and places do not go together
        return shown
    letters = Letters(found)
    words = _words_with_digits(whole)
    scripts = [script for start, word in words for script in _scripts(letters, start, word)]
    if not scripts:
        return shown
    return _written(shown, _found_again(whole, shown, scripts))


def _words_with_digits(text: str) -> Iterator[tuple[int, str]]:
    for match in _FROM_DIGIT.finditer(text):
        start = match.start()
        while start and not text[start - 1].isspace():
            start -= 1
        if match.end() - start > 1:
            yield start, text[start : match.end()]


def _scripts(letters: Letters, start: int, word: str) -> Iterator[Script]:
    """Give each script in a word that begins at ``start``."""
    if not _is_uneven(letters, start, word):
        return
    base = letters.at(start)
    kinds = [""]
    for at, character in enumerate(word[1:], start + 1):
        letter = letters.at(at)
        kinds.append(_kind(letter, base))
        if not kinds[-1] and character.isalnum():
            base = letter
    for kind, group in groupby(kinds):
        end = start + len(list(group))
        if kind:
            yield Script(start, end, kind)
        start = end


def _is_uneven(letters: Letters, start: int, word: str) -> bool:
    """Tell whether digits of a word stand on another line than its first character."""
    line = letters.baseline(start)
    for run in _DIGITS.finditer(word):
        first, last = run.start(), run.end() - 1
        if first and abs(letters.baseline(start + first) - line) > SAME_LINE:
            return True
        if last > first and abs(letters.baseline(start + last) - line) > SAME_LINE:
            return True
    return False


def _kind(letter: Letter, base: Letter) -> str:
    if not base.size or not SMALLER[0] <= letter.size / base.size <= SMALLER[1]:
        return ""
    moved = (letter.baseline - base.baseline) / base.size
    if HIGHER[0] <= moved <= HIGHER[1]:
        return "sup"
    return "sub" if LOWER[0] <= moved <= LOWER[1] else ""


def _found_again(whole: str, shown: str, scripts: list[Script]) -> Iterator[Script]:
    """Give the scripts where they stand in the text that lies on the page."""
    shown = shown.replace("\x02", "\ufffe")  # pdfium's two names for a hyphen at a line's end
    done = 0
    for start, end, kind in scripts:
        line = whole.rfind("\n", max(start - NEAR, 0), start) + 1 or max(start - NEAR, 0)
        found = shown.find(whole[line:end], max(done - (start - line), 0))
        if found >= 0:
            done = found + end - line
            yield Script(found + start - line, done, kind)


def _written(text: str, scripts: Iterable[Script]) -> str:
    pieces: list[str] = []
    done = 0
    for start, end, kind in scripts:
        pieces.append(text[done:start])
        before = text[max(start - NEAR, 0) : start].rpartition("\n")[2]
        after = text[end : end + NEAR].partition("\r")[0].partition("\n")[0]
        write = notation.raised if kind == "sup" else notation.lowered
        pieces.append(write(before, text[start:end], after))
        done = end
    return "".join([*pieces, text[done:]])
