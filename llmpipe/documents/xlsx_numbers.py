"""Numbers, dates and durations of Excel's cells, as their formats show them.

What a format adds is shown: zeros before a number, words and units beside it, a scale, a currency.
A fraction keeps all its digits, and days are written year first. Not covered: separators of
thousands, rounding to decimals, exponents, fractions.
"""

from __future__ import annotations

import datetime
import operator
import re
from functools import cache
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
"""Seconds of a unit, and how many of it the next larger one has."""

_PLACES = frozenset("0#?.")

LARGEST = 1e15
"""Numbers from here on have more digits than Excel keeps; they are not formatted."""


class _Section(NamedTuple):
    """How numbers of a kind are shown: what stands before, among and behind their digits."""

    before: str
    mask: str
    behind: str
    thousands: int
    """How many thousands are left out."""
    pads: bool
    """Whether zeros stand where a number has no digit."""
    relation: str
    limit: float
    percent: bool


def number(value: float, format_: str) -> str:
    """Return a number as its format shows it."""
    if not abs(value) < LARGEST:
        return str(value)
    if format_ == "General":
        return _digits(value)
    sections = _sections(format_)
    section = _chosen(value, sections)
    if not section.mask:  # a word in place of the number
        return " ".join(section.before.split()) or _digits(value)
    beside = section.before + section.behind
    shown = float(f"{abs(value) * 100:.12g}") if section.percent else abs(value)
    text = _masked(shown / 1000**section.thousands, section)
    line = " ".join(f"{section.before}{text}{section.behind}".split())
    if value < 0 and (section is sections[0] or not {"-", "("} & set(beside)):
        line = f"-{line}"
    return line or _digits(value)


def duration(value: datetime.timedelta, format_: str) -> str:
    """Return a duration as its format shows it: ``[h]:mm`` goes on after 24 hours."""
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
    """Return a day, a time of day, or both, as far as the format shows them."""
    if isinstance(value, datetime.time):
        value = datetime.datetime.combine(datetime.date(2000, 1, 1), value)
        format_ = re.sub("[dDyY]", "", format_)
    if value.microsecond:  # a moment is a fraction of days in the file, and nearly what was meant
        value = (value + datetime.timedelta(milliseconds=500)).replace(microsecond=0)
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
    """Take a format apart: for positive numbers, negative ones, zero; or by conditions."""
    sections: list[_Section] = []
    pieces: list[tuple[bool, str]] = []
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


def _section(
    pieces: list[tuple[bool, str]], relation: str, limit: float, percent: bool
) -> _Section:
    places = [at for at, (is_mask, _) in enumerate(pieces) if is_mask]
    first, last = (places[0], places[-1] + 1) if places else (len(pieces), len(pieces))
    masks = "".join(pieces[at][1] for at in places)
    digits = masks.rstrip(",")
    parts = (pieces[:first], pieces[first:last], pieces[last:])
    before, mask, behind = ("".join(text for _, text in part) for part in parts)
    pads = digits.partition(".")[0].count("0") > 1 and _PLACES.issuperset(digits)
    return _Section(before, mask, behind, len(masks) - len(digits), pads, relation, limit, percent)


def _written(match: re.Match[str]) -> str:
    """Give what a part of a format puts beside the digits."""
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
    """Put the digits of a number into places; where there is no digit, a zero may stand."""
    if value == 0 and "?" in section.mask and "0" not in section.mask:
        return ""
    if not section.pads:
        return _digits(value)
    whole, point, _ = section.mask.partition(".")
    digits, _, rest = _digits(value if point else round(value)).partition(".")
    left, text = list(digits), ""
    for place in reversed(whole):
        if place in "0#?":
            text = (left.pop() if left else "0" if place == "0" else "") + text
        else:
            text = place + text
    return "".join(left) + text + (f".{rest}" if rest else "")
