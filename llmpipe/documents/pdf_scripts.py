"""Find powers, indices and note marks on a PDF page from the positions and sizes of letters."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

from llmpipe.documents import notation

SMALLER = (0.4, 0.87)
"""Range of a script's letter size, as a share of the size of the letter before it."""

HIGHER = (0.12, 0.9)
"""Range of a superscript's height above its line, as a share of the line's letter size."""

LOWER = (-0.6, -0.04)
"""The same for a subscript."""

SAME_LINE = 0.1
"""Largest difference between baselines of one line, in points."""

GAP = (-0.4, 0.35)
"""Range of the gap between adjacent letters, as a share of the line's letter size."""

BREAK = "\r\n"
"""What pdfium writes between lines, and between a short base and its script."""

NEAR = 80
"""How many characters before a script decide what it is."""

_FROM_DIGIT = re.compile(r"\d\S*")
_TO_NEXT = {"\r": 2, "\n": 1}
_DIGITS = re.compile(r"\d+")


class Letter(NamedTuple):
    """The baseline and size of a letter, in points."""

    baseline: float
    size: float


class Script(NamedTuple):
    """The start and end of a superscript (``sup``) or subscript (``sub``) in a text."""

    start: int
    end: int
    kind: str


class Letters:
    """The letters of a page with the positions from pdfium."""

    def __init__(self, found: Any) -> None:
        import pypdfium2.raw

        self._found, self._pdfium = found, pypdfium2.raw
        self._x, self._y = ctypes.c_double(), ctypes.c_double()
        self._matrix = pypdfium2.raw.FS_MATRIX()

    def baseline(self, at: int) -> float:
        """Return the height of a letter's baseline on its page."""
        self._pdfium.FPDFText_GetCharOrigin(self._found.raw, at, self._x, self._y)
        return self._y.value

    def at(self, at: int) -> Letter:
        """Return the position of a letter and its size as scaled on the page."""
        size = self._pdfium.FPDFText_GetFontSize(self._found.raw, at)
        has_matrix = self._pdfium.FPDFText_GetMatrix(self._found.raw, at, self._matrix)
        return Letter(self.baseline(at), size * abs(self._matrix.d if has_matrix else 1))

    def is_beside(self, left: int, right: int, size: float) -> bool:
        """Return whether a letter directly follows another in a line of the given letter size."""
        gap = self._found.get_charbox(right)[0] - self._found.get_charbox(left)[2]
        return bool(GAP[0] * size <= gap <= GAP[1] * size)


def marked(found: Any, shown: str) -> str:
    """Write raised and lowered text of a page in line.

    Only words with a digit are examined: there, scripts change the meaning (10²³ is not 1023).

    Args:
        found: pdfium's text page.
        shown: the text of it within the page, from pdfium.
    """
    whole = found.get_text_range()
    if len(whole) != found.count_chars():  # letters and positions do not match
        return shown
    letters = Letters(found)
    words = _words_with_digits(letters, whole)
    scripts = [script for start, end in words for script in _scripts(letters, whole, start, end)]
    if not scripts:
        return shown
    return _written(shown, _found_again(whole, shown, scripts))


def _words_with_digits(letters: Letters, text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of words; a break between base and script does not end one."""
    for match in _FROM_DIGIT.finditer(text):
        start = match.start()
        while start and (not text[start - 1].isspace() or _is_parted(letters, text, start)):
            start -= 1 if not text[start - 1].isspace() else len(BREAK)
        if match.end() - start > 1:
            yield start, match.end()


def _is_parted(letters: Letters, text: str, at: int) -> bool:
    """Return whether a script begins after a break, beside its base."""
    before = at - len(BREAK) - 1
    if before < 0 or text[before + 1 : at] != BREAK or text[before].isspace():
        return False
    base = letters.at(before)
    return bool(_kind(letters.at(at), base)) and letters.is_beside(before, at, base.size)


def _scripts(letters: Letters, text: str, start: int, end: int) -> Iterator[Script]:
    """Yield each script in a word, with the breaks that separate it from its line."""
    word = text[start:end]
    if not _is_uneven(letters, start, word):
        return
    base = letters.at(start)
    kinds: list[tuple[str, Letter]] = [("", base)]
    for at, character in enumerate(word[1:], start + 1):
        letter = letters.at(at + _TO_NEXT.get(character, 0))
        kind = _kind(letter, base)
        if not kind and character.isalnum():
            base = letter
        kinds.append((kind, base))
    for (kind, base), group in groupby(kinds):
        end = start + len(list(group))
        if kind:
            yield Script(start, _with_break(letters, text, end, base), kind)
        start = end


def _with_break(letters: Letters, text: str, end: int, base: Letter) -> int:
    """Return where a script ends: after the break if its line continues beside it."""
    after = end + len(BREAK)
    if after >= len(text) or text[end:after] != BREAK:
        return end
    is_on_line = abs(letters.baseline(after) - base.baseline) <= SAME_LINE
    return after if is_on_line and letters.is_beside(end - 1, after, base.size) else end


def _is_uneven(letters: Letters, start: int, word: str) -> bool:
    """Return whether digits of a word have another baseline than its first character."""
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
    """Yield the scripts at their positions in the text within the page."""
    shown = shown.replace("\x02", "\ufffe")  # pdfium's two codes for a hyphen at a line's end
    done = 0
    for start, end, kind in scripts:
        near = max(start - NEAR, 0)
        for first in (near, max(whole.rfind("\n", near, start) + 1, near)):
            before, script = _pattern(whole[first:start]), _pattern(whole[start:end])
            pattern = re.compile(f"{before}({script})")
            found = pattern.search(shown, max(done - (start - first), 0))
            if found:
                done = found.end()
                yield Script(found.start(1), done, kind)
                break


def _pattern(text: str) -> str:
    """Return a pattern for a text in which pdfium may have left out breaks."""
    return f"(?:{BREAK})?".join(map(re.escape, text.split(BREAK)))


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
