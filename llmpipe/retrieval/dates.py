"""Find dates in a text, such as `5 March 2024`, `2024-03-05`, `3/5/24` and `2024年3月5日`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmpipe.retrieval.fact_words import MONTHS, SHORT_MONTHS, UNSURE_MONTHS

FIRST_SHORT_YEAR = 70
"""Two-digit years from this one on belong to the last century."""

_ALL_MONTHS = {**SHORT_MONTHS, **MONTHS}
_MONTH = "|".join(sorted(_ALL_MONTHS, key=len, reverse=True))
_SURE_MONTH = "|".join(sorted(MONTHS.keys() - UNSURE_MONTHS, key=len, reverse=True))
_DATE = re.compile(
    rf"""
    \b(?P<y0>\d{{4}})[-/.](?P<m0>\d{{1,2}})[-/.](?P<d0>\d{{1,2}})\b
    | \b(?P<d1>\d{{1,2}})(?P<mark>[-/.])\s?(?P<m1>\d{{1,2}})(?P=mark)\s?(?P<y1>\d{{4}})\b
    | \b(?P<d2>\d{{1,2}})/(?P<m2>\d{{1,2}})/(?P<y2>\d{{2}})\b
    | \b(?P<d3>\d{{1,2}})(?:st|nd|rd|th|er)?\.?\s(?:de\s|of\s)?(?P<m3>{_MONTH})\b
      (?:\.?,?\s(?:de\s)?(?P<y3>\d{{4}})\b)?
    | \b(?P<m4>{_MONTH})\.?\s(?P<d4>\d{{1,2}})(?:st|nd|rd|th)?\b(?!:)(?:,?\s(?P<y4>\d{{4}})\b)?
    | \b(?P<m5>{_MONTH})\.?,?\s(?:de\s)?(?P<y5>\d{{4}})\b
    | \b(?P<m6>{_SURE_MONTH})\b
    | \b(?:(?P<y7>\d{{4}})\s?[年년]\s?)?(?P<m7>\d{{1,2}})\s?[月월]
      (?:\s?(?P<d7>\d{{1,2}})\s?[日号號일])?
    """,
    re.VERBOSE,
)
_DIGIT = re.compile(r"\d")
_WORD = re.compile(r"[^\W\d_]+")
_VERBS = re.compile(r"(?<!\d )\b(?:may|march)\b(?! \d)")


@dataclass(frozen=True, slots=True)
class Date:
    """A date with its possible readings as (year, month, day); 0 stands for an unstated part."""

    readings: frozenset[tuple[int, int, int]]

    def gives(self, other: Date) -> bool:
        """Return whether this date states all that the other does: `2024-03-05` and `5 March`."""
        return any(
            all(theirs in (0, mine) for mine, theirs in zip(ours, others, strict=True))
            for ours in self.readings
            for others in other.readings
        )

    def years(self) -> set[int]:
        """Return the years of the readings that state one."""
        return {year for year, _, _ in self.readings if year}


def without_verbs(text: str) -> str:
    """Return a text without lowercase words that are hardly months: *may*, *march*."""
    return _VERBS.sub(" ", text)


def take_dates(text: str) -> tuple[list[Date], str]:
    """Return the dates of a text, and the text with each of them replaced by a space.

    Args:
        text: a text as `llmpipe.retrieval.quantities.in_digits` returns it.
    """
    if not _DIGIT.search(text) and _ALL_MONTHS.keys().isdisjoint(_WORD.findall(text)):
        return [], text
    return [_date(match) for match in _DATE.finditer(text)], _DATE.sub(" ", text)


def begins_with_a_date(text: str) -> bool:
    """Return whether a text begins with a date; `5. March` is then not a list number."""
    return bool(_DATE.match(text.lstrip()))


def _date(match: re.Match[str]) -> Date:
    parts = {name[0]: text for name, text in match.groupdict().items() if text and name != "mark"}
    year, day = int(parts.get("y", 0)), int(parts.get("d", 0))
    month = _ALL_MONTHS.get(parts["m"]) or int(parts["m"])
    if match["y2"]:
        year += 1900 if year >= FIRST_SHORT_YEAR else 2000
    readings = {(year, month, day)}
    if (match["mark"] == "/" or match["y2"]) and day <= 12:  # month/day or day/month
        readings.add((year, day, month))
    return Date(frozenset(readings))
