"""Drop rows whose text was damaged on its way here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from llmpipe.stages.curate.pool import Drop, Pool
from llmpipe.stages.curate.steps import Encoding

_BROKEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f\ufffd\ud800-\udfff]+")
"""Replacement characters, lone surrogates, and control characters but for white space and ESC."""

_LEADING = "[\u00c2-\u00f4]"
_OF_1252 = "\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122"
_REST = f"[\u0080-\u00bf{_OF_1252}]"
_MISREAD = re.compile(f"(?:{_LEADING}{_REST}{{1,3}})+")
"""Runs of letters that UTF-8 becomes when it is read as Windows-1252 or Latin-1."""

_LIKELY = re.compile(
    "[\u00a0-\u017f\u1e00-\u1eff\u2000-\u2bff\u3000-\u30ff\ufb00-\ufb06\ufeff\uff00-\uffef\ufffd"
    "\U00010000-\U0010ffff]"
)
"""What a single letter can have been: European, punctuation, a symbol, kana, an emoji.

Others seldom stand alone, and sound text looks like them: the end of `Spaß“` like a letter of N’Ko.
"""

_BEHIND = re.compile("[\u00a0\u00ab\u00b2\u00b3\u00b7\u00bb\u2013-\u201e\u2022\u2026\u2039\u203a]+")
"""What may stand behind a letter of sound text."""


def run(step: Encoding, pool: Pool) -> Mapping[str, Any]:
    """Drop rows with more damaged places than the step allows; return the metrics."""
    drops = {}
    for position, said in pool.each_said("looking for damaged text"):
        found = [place for turn in said for place in damaged(turn.text)]
        if len(found) > step.most:
            reason = f"{len(found)} damaged: {found[0]}"
            drops[position] = Drop("encoding", reason, f"raise most to {len(found)}", len(found))
    pool.drop(drops)
    return {}


def damaged(text: str) -> Iterator[str]:
    """Yield the damaged places of a text, each in words."""
    if text.isascii() and text.isprintable():
        return
    for match in _BROKEN.finditer(text):
        yield f"the characters {match[0][:10]!a}"
    for match in _MISREAD.finditer(text):
        meant = _meant(match[0])
        if meant is not None and not _is_sound(match, meant):
            yield f"{match[0]!r}, which was {meant!r}"


def _meant(text: str) -> str | None:
    """Return the text that was misread, None if it is not UTF-8."""
    try:
        return b"".join(map(_byte, text)).decode("utf-8")
    except UnicodeError:
        return None


def _is_sound(match: re.Match[str], meant: str) -> bool:
    """Return whether a run of letters is more likely meant as it is."""
    if len(meant) > 1:
        return False
    if not _LIKELY.match(meant):
        return True
    letter, marks = match[0][0], match[0][1:]
    before = match.string[match.start() - 1 : match.start()]
    behind = match.string[match.end() : match.end() + 1]
    # Capitals follow no small letter, and marks stand at the end of a word, but for apostrophes.
    return (
        _BEHIND.fullmatch(marks) is not None
        and (letter.islower() or not before.islower())
        and (not behind.isalnum() or marks == "\u2019")
        and marks != "\u00a0"
    )


def _byte(letter: str) -> bytes:
    return bytes([ord(letter)]) if ord(letter) < 256 else letter.encode("cp1252")
