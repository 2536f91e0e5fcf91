"""What must be the same in a sentence and in what it is said to rest on: numbers, dates, negations.

Words that are shared make two sentences alike; one number or one *not* makes them opposites. A fact
is compared in one notation: `1,000` as `1000`, `40.0` and *forty* as `40`, `5 March 2024` as
`2024-3-5`. A sentence may say less than its source: `5 March` is in `2024-03-05`.

Not covered: units, arithmetic, names of numbers put together as in German, what is only meant
(*closed* for *not open*), and negation by the endings of words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from llmpipe.retrieval.fact_words import (
    DENSE_NEGATIONS,
    MONTHS,
    NEGATED_BEFORE,
    NEGATIONS,
    NOT_ONLY,
    NUMERALS,
    PASSED_OVER,
    SHORT_MONTHS,
    UNSURE_MONTHS,
    WEEKDAYS,
)
from llmpipe.words import bare, folded, plain_words

STEM = 4
"""Letters by which a negated word is known again: *open*, *opens*, *opened*."""

Readings = frozenset[str]
_Fact = tuple[Readings, Readings]
"""How a fact can be read where it is stated, and what it gives to others."""

_ALL_MONTHS = {**SHORT_MONTHS, **MONTHS}
_MONTH = "|".join(sorted(_ALL_MONTHS, key=len, reverse=True))
_SURE_MONTH = "|".join(sorted(MONTHS.keys() - UNSURE_MONTHS, key=len, reverse=True))
_DATE = re.compile(
    rf"""
    \b(?P<y0>\d{{4}})[-/.](?P<m0>\d{{1,2}})[-/.](?P<d0>\d{{1,2}})\b
    | \b(?P<d1>\d{{1,2}})(?P<mark>[-/.])\s?(?P<m1>\d{{1,2}})(?P=mark)\s?(?P<y1>\d{{4}})\b
    | \b(?P<d2>\d{{1,2}})(?:st|nd|rd|th|er)?\.?\s(?:de\s|of\s)?(?P<m2>{_MONTH})\b
      (?:\.?,?\s(?:de\s)?(?P<y2>\d{{4}})\b)?
    | \b(?P<m3>{_MONTH})\.?\s(?P<d3>\d{{1,2}})(?:st|nd|rd|th)?\b(?!:)(?:,?\s(?P<y3>\d{{4}})\b)?
    | \b(?P<m4>{_MONTH})\.?,?\s(?:de\s)?(?P<y4>\d{{4}})\b
    | \b(?P<m5>{_SURE_MONTH})\b
    """,
    re.VERBOSE,
)
_NUMBER = re.compile(
    r"""
    (?<![\w.])(?:
        (?P<hour>\d{1,2}):(?P<minute>\d{2})(?!\d)
        | (?P<number>\d{1,3}(?:[ ']\d{3})+(?![\d.,]\d) | \d+(?:[.,]\d+)*)(?P<power>\^-?\d+)?
    )(?P<half>\s?[ap]\.?m\b)?
    | (?<!\w)(?P<code>[^\W\d_]+[-_]?\d+(?:\.\d+)*\w*)
    """,
    re.VERBOSE,
)
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:([.,])\d{3})(?:\1\d{3})*")
_LIST_ITEM = re.compile(r"\s*(?:[-*+•]|\d{1,3}[.)])\s")
_VERBS = re.compile(r"(?<!\d )\b(?:may|march)\b(?! \d)")
"""In small letters these are hardly months."""
_CONTRACTED = re.compile(r"(?:(?<=\w)n't|(?<=can)not)\b")
_DENSE = re.compile("|".join(DENSE_NEGATIONS))


@dataclass(frozen=True, slots=True)
class Facts:
    """What a text states, and what it gives to others, which may say less than it.

    Of the readings of what is stated one must be given. ``negated`` are the stems that a negation
    belongs to, ``affirmed`` those that stand without one.
    """

    stated: frozenset[Readings]
    given: frozenset[str]
    negations: int
    negated: frozenset[str]
    affirmed: frozenset[str]

    def support(self, claim: Facts) -> bool:
        """Tell whether nothing that a claim states is missing here, or said the other way round."""
        if any(fact.isdisjoint(self.given) for fact in claim.stated):
            return False
        if claim.negations and not self.negations:
            return False
        denied = self.negated - self.affirmed - claim.negated
        return not (denied & claim.affirmed or (claim.negated - self.negated) & self.affirmed)


@lru_cache(maxsize=1 << 12)
def facts_of(text: str) -> Facts:
    """Return the facts of a text."""
    item = _LIST_ITEM.match(text)
    text = _VERBS.sub(" ", text[item.end() :] if item else text)
    text = _CONTRACTED.sub(" not", " ".join(map(bare, folded(text).split())))
    rest = _DATE.sub(" ", text)
    found = [_date(match) for match in _DATE.finditer(text)]
    found += map(_number, _NUMBER.finditer(rest), [rest] * len(rest))
    words = plain_words(rest)
    found += [_named(f"day {WEEKDAYS[word]}") for word in words if word in WEEKDAYS]
    found += [_named(str(value)) for value in _numerals(words)]
    negations = [*_negations(words), *_dense_negations(text)]
    negated = Counter(negations)
    return Facts(
        frozenset(stated for stated, _ in found),
        frozenset(chain.from_iterable(given for _, given in found)),
        len(negations),
        frozenset(filter(None, negated)),
        frozenset(Counter(map(_stem, words)) - negated),
    )


def _named(reading: str) -> _Fact:
    return frozenset({reading}), frozenset({reading})


def _date(match: re.Match[str]) -> _Fact:
    """Read a date as ``year-month-day``; what it does not say is empty."""
    parts = {name[0]: text for name, text in match.groupdict().items() if text and name != "mark"}
    year, month, day = (parts.get(name, "").lstrip("0") for name in "ymd")
    month = str(_ALL_MONTHS.get(month, month))
    orders = [(month, day)]
    if match["mark"] == "/" and int(day) <= 12:  # the other side of the Atlantic
        orders.append((day, month))
    stated = frozenset(f"{year}-{m}-{d}" for m, d in orders)
    less = {f"{y}-{m}-{d}" for m, of in orders for y in {year, ""} for d in {of, ""}}
    return stated, stated | less


def _number(match: re.Match[str], text: str) -> _Fact:
    if match["code"]:
        return _named(re.sub("[-_]", "", match["code"]))
    value = _value(match)
    before = text[max(0, match.start() - 2) : match.start()]
    if before.endswith("-") and before[0] in "- (":
        return _named(f"-{value}")
    half = (match["half"] or "").strip()[:1]
    hour, _, minutes = value.partition(":")
    if half == "p" and hour.isdigit() and int(hour) < 12:
        later = f"{int(hour) + 12}{':' * bool(minutes)}{minutes}"
        return frozenset({later}), frozenset({value, later})
    morning = f"{value} am"
    return frozenset({morning if half == "a" else value}), frozenset({value, morning})


def _value(match: re.Match[str]) -> str:
    """Return a number in one notation, a full hour as its number alone."""
    if match["hour"]:
        hour = str(int(match["hour"]))
        return hour if match["minute"] == "00" else f"{hour}:{match['minute']}"
    number = match["number"].replace(" ", "").replace("'", "")
    marks = re.findall("[.,]", number)
    if _THOUSANDS.fullmatch(number):
        number = re.sub("[.,]", "", number)
    elif len(set(marks)) == 2:  # the last one is the decimal mark
        number = number.replace(marks[0], "").replace(",", ".")
    elif len(marks) == 1:
        number = number.replace(",", ".")
    whole, _, decimals = number.partition(".")
    if "." not in decimals:
        number = ".".join(filter(None, (whole.lstrip("0") or "0", decimals.rstrip("0"))))
    return number + (match["power"] or "")


def _numerals(words: Sequence[str]) -> Iterator[int]:
    """Yield the numbers that are written as words; `twenty five` and `two hundred` as one."""
    value: int | None = None
    for word in [*words, ""]:
        follows = NUMERALS.get(word)
        if value is not None and follows is not None:
            if 20 <= value % 100 < 100 and value % 10 == 0 and follows < 10:
                value += follows
                continue
            if follows in (100, 1000) and value < follows:
                value *= follows
                continue
        if value is not None:
            yield value
        value = follows


def _negations(words: Sequence[str]) -> Iterator[str]:
    """Yield the stem of what each negation negates; nothing where no word is beside it."""
    for at, word in enumerate(words):
        if word not in NEGATIONS:
            continue
        beside = words[:at][::-1] if word in NEGATED_BEFORE else words[at + 1 :]
        negated = next((other for other in beside if other not in PASSED_OVER), "")
        is_number = word == "no" and negated.isdigit()  # no. 5
        if negated not in NOT_ONLY and not is_number:
            yield _stem(negated)


def _dense_negations(text: str) -> Iterator[str]:
    for match in _DENSE.finditer(text):
        if match[0] in NEGATED_BEFORE:
            beside = plain_words(text[: match.start()])[-1:]
        else:
            beside = plain_words(text[match.end() :][:STEM])[:1]
        yield _stem("".join(beside))


def _stem(word: str) -> str:
    return word[:STEM]
