"""Format numbers, dates and durations of Excel cells as their formats display them.

What a format adds is kept: leading zeros, words, units, a scale, a currency. A fraction keeps all
its digits, and dates begin with the year. Not covered: thousands separators, rounding to decimals,
exponents, fractions.
"""

from __future__ import annotations

import contextlib
import datetime
import operator
import re
from functools import cache
from itertools import takewhile
from typing import NamedTuple

_TOKEN = re.compile(
    r"""(?xs) "(?P<quoted>[^"]*)" | \\(?P<escaped>.) | (?P<space>[_*].)
    | \[\$(?P<currency>[^\]-]*)[^\]]*\]
    | \[(?P<relation><=|>=|<>|[<>=])(?P<limit>-?\d+(?:\.\d+)?)\]
    | \[(?P<elapsed>[hmsHMS]+)\] | \[[^\]]*\]
    | (?P<mask>General|[0#?.,/@]|E[+-]) | (?P<end>;)
    | (?P<unit>[hH]+|[mM]+|[sS]+|[dD]+|[yY]+) | (?P<literal>.)"""
)
_RELATIONS = {"<": operator.lt, "<=": operator.le, "=": operator.eq, "<>": operator.ne,
              ">": operator.gt, ">=": operator.ge}  # fmt: skip
_UNITS = {"h": (3600, 24), "m": (60, 60), "s": (1, 60)}
"""Seconds in a unit, and how many of it the next larger unit has."""

_PLACES = frozenset("0#?.")

LARGEST = 1e15
"""Numbers from this one on have more digits than Excel keeps; they are not formatted."""


_Piece = tuple[bool, str]
"""Whether a part of a format is a placeholder, and its text."""


class _Section(NamedTuple):
    """How some numbers are displayed: the text before, among and after their digits."""

    before: str
    places: str
    """The placeholders, without the text among them."""
    behind: str
    thousands: int
    """How many factors of a thousand are left out."""
    whole: tuple[_Piece, ...]
    """Placeholders and text for the digits before the point; empty if there is no text."""
    relation: str
    limit: float
    percent: bool


def number(value: float, format_: str) -> str:
    """Return a number as its format displays it."""
    if not abs(value) < LARGEST:
        return str(value)
    if format_ == "General":
        return _digits(value)
    sections = _sections(format_)
    section = _chosen(value, sections)
    if not section.places:  # a word instead of the number
        return " ".join(section.before.split()) or _digits(value)
    beside = section.before + section.behind
    shown = float(f"{abs(value) * 100:.12g}") if section.percent else abs(value)
    text = _masked(shown / 1000**section.thousands, section)
    line = " ".join(f"{section.before}{text}{section.behind}".split())
    if value < 0 and (section is sections[0] or not {"-", "("} & set(beside)):
        line = f"-{line}"
    return line or _digits(value)


def duration(value: datetime.timedelta, format_: str) -> str:
    """Return a duration as its format displays it: ``[h]:mm`` continues after 24 hours."""
    seconds = round(value.total_seconds())
    left, text = abs(seconds), ""
    for match in _TOKEN.finditer(format_.partition(";")[0]):
        unit = (match["elapsed"] or match["unit"] or "").lower()
        if unit[:1] in _UNITS:
            size, most = _UNITS[unit[:1]]
            count = left // size if match["elapsed"] else left // size % most
            text += str(count).zfill(len(unit))
        else:
            text += _written(match)
    return ("-" if seconds < 0 else "") + " ".join(text.split())


def moment(value: datetime.datetime | datetime.time, format_: str) -> str:
    """Return a date, a time of day, or both, as the format displays them."""
    if isinstance(value, datetime.time):
        value = datetime.datetime.combine(datetime.date(2000, 1, 1), value)
        format_ = re.sub("[dDyY]", "", format_)
    if value.microsecond:  # stored as a fraction of days, which is not exact
        with contextlib.suppress(OverflowError):  # the last moment of the calendar
            value += datetime.timedelta(milliseconds=500)
        value = value.replace(microsecond=0)
    units = [match["unit"].lower() for match in _TOKEN.finditer(format_) if match["unit"]]
    has_time = any(unit[0] in "hs" for unit in units)
    has_day = any(unit[0] in "dy" or unit.startswith("mmm") for unit in units)
    if not units:  # as plain text of the file
        has_day, has_time = True, value.time() != datetime.time()
    if not has_time:
        return value.date().isoformat()
    has_seconds = value.second and any(unit[0] == "s" for unit in units)
    unit = "seconds" if has_seconds else "minutes"
    return value.isoformat(" ", unit) if has_day else value.time().isoformat(unit)


@cache
def _sections(format_: str) -> tuple[_Section, ...]:
    """Parse a format: sections for positive numbers, negative ones and zero, or by condition."""
    sections: list[_Section] = []
    pieces: list[_Piece] = []
    relation, limit, percent = "", 0.0, False
    for match in _TOKEN.finditer(format_):
        if match["relation"]:
            relation, limit = match["relation"], float(match["limit"])
        elif not match["end"]:
            pieces.append((bool(match["mask"]), match["mask"] or _written(match)))
            percent |= match["literal"] == "%"
        else:
            sections.append(_section(pieces, relation, limit, percent))
            pieces, relation, limit, percent = [], "", 0.0, False
    return (*sections, _section(pieces, relation, limit, percent))


def _section(pieces: list[_Piece], relation: str, limit: float, percent: bool) -> _Section:
    at_places = [at for at, (is_place, _) in enumerate(pieces) if is_place]
    first, last = (at_places[0], at_places[-1] + 1) if at_places else (len(pieces), len(pieces))
    places = "".join(pieces[at][1] for at in at_places)
    digits = places.rstrip(",")
    parts = (pieces[:first], pieces[last:])
    before, behind = ("".join(text for _, text in part) for part in parts)
    whole = tuple(takewhile(lambda piece: piece != (True, "."), pieces[first:last]))
    pads = "0" in "".join(text for is_place, text in whole if is_place).rstrip(",")[:-1]
    if not _PLACES.issuperset(digits) or not (pads or any(not is_place for is_place, _ in whole)):
        whole = ()
    thousands = len(places) - len(digits)
    return _Section(before, places, behind, thousands, whole, relation, limit, percent)


def _written(match: re.Match[str]) -> str:
    """Return the text that a part of a format adds to the digits."""
    if match["space"]:
        return " "
    words = (match[name] for name in ("quoted", "escaped", "currency", "unit", "literal"))
    return next(filter(None, words), "")


def _chosen(value: float, sections: tuple[_Section, ...]) -> _Section:
    if any(section.relation for section in sections):
        for section in sections:
            if not section.relation or _RELATIONS[section.relation](value, section.limit):
                return section
        return sections[-1]
    at = 1 if value < 0 else 2 if value == 0 else 0
    return sections[at] if at < len(sections) else sections[0]


def _digits(value: float) -> str:
    return f"{value:.15g}"


def _masked(value: float, section: _Section) -> str:
    """Put the digits of a number into placeholders; an empty one may become a zero."""
    if value == 0 and "?" in section.places and "0" not in section.places:
        return ""
    digits, point, rest = _digits(value).partition(".")
    if not section.whole or not digits.isdecimal() or not (rest or "0").isdecimal():
        return _digits(value)
    left, text = list(digits), ""
    for is_place, piece in reversed(section.whole):
        if not is_place:
            text = piece + text
        elif piece != ",":
            text = (left.pop() if left else "0" if piece == "0" else "") + text
    return "".join(left) + text + point + rest
