"""Match patterns of document ids: ``*``, ``?`` and ``[a-z]``, also across ``/`` and line breaks.

The patterns mean the same as in `fnmatch.fnmatchcase`, but no regular expression is used: matching
takes time proportional to the id for each wildcard, whatever pattern a client sends.
"""

from __future__ import annotations

from dataclasses import dataclass

WILDCARDS = "*?["
"""Characters that begin a wildcard."""


@dataclass(frozen=True, slots=True)
class _OneOf:
    """One character that is in some ranges, or in none of them."""

    ranges: tuple[tuple[str, str], ...]
    others: bool

    def admits(self, character: str) -> bool:
        return any(low <= character <= high for low, high in self.ranges) != self.others


@dataclass(frozen=True, slots=True)
class _Piece:
    """The part between two asterisks: strings and ranges by position; `?` leaves a gap."""

    length: int
    parts: tuple[tuple[int, str | _OneOf], ...]

    def is_at(self, text: str, at: int) -> bool:
        return at >= 0 and all(
            text.startswith(part, at + place)
            if isinstance(part, str)
            else part.admits(text[at + place])
            for place, part in self.parts
        )

    def find(self, text: str, start: int, end: int) -> int:
        """Return the first match between two positions, or -1."""
        place, words = self.parts[0] if len(self.parts) == 1 else (0, None)
        if isinstance(words, str):
            at = text.find(words, start + place, end - (self.length - place - len(words)))
            return at if at < 0 else at - place
        places = range(start, end - self.length + 1)
        return next((at for at in places if self.is_at(text, at)), -1)


class Glob:
    """A parsed pattern."""

    def __init__(self, pattern: str) -> None:
        self._first, *self._rest = _pieces(pattern)

    def matches(self, text: str) -> bool:
        """Return whether the pattern matches an entire text."""
        at, end = self._first.length, len(text)
        if not self._rest:
            return at == end and self._first.is_at(text, 0)
        *middle, last = self._rest
        end -= last.length
        if end < at or not (self._first.is_at(text, 0) and last.is_at(text, end)):
            return False
        for piece in middle:
            found = piece.find(text, at, end)
            if found < 0:
                return False
            at = found + piece.length
        return True


def has_wildcards(pattern: str) -> bool:
    """Return whether a pattern can match anything but itself."""
    return any(sign in pattern for sign in WILDCARDS)


def _pieces(pattern: str) -> list[_Piece]:
    pieces, parts, words, length, at = list[_Piece](), list[tuple[int, str | _OneOf]](), "", 0, 0

    def say() -> None:
        nonlocal words
        if words:
            parts.append((length - len(words), words))
        words = ""

    while at < len(pattern):
        sign, at = pattern[at], at + 1
        if sign == "*":
            say()
            pieces.append(_Piece(length, tuple(parts)))
            parts, length = [], 0
            continue
        if sign == "?":
            say()
        elif sign == "[" and (close := _end_of_ranges(pattern, at)) >= 0:
            say()
            parts.append((length, _ranges(pattern[at:close])))
            at = close + 1
        else:
            words += sign
        length += 1
    say()
    return [*pieces, _Piece(length, tuple(parts))]


def _end_of_ranges(pattern: str, at: int) -> int:
    """Return where a bracket closes, or -1; a bracket at the very start is literal."""
    at += pattern.startswith("!", at)
    return pattern.find("]", at + pattern.startswith("]", at))


def _ranges(inside: str) -> _OneOf:
    others = inside.startswith("!")
    signs, at, ranges = inside[others:], 0, []
    while at < len(signs):
        is_range = signs[at + 1 : at + 2] == "-" and at + 2 < len(signs)
        ranges.append((signs[at], signs[at + 2 if is_range else at]))
        at += 3 if is_range else 1
    return _OneOf(tuple(ranges), others)
