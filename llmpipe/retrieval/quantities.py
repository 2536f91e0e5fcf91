"""Find quantities in a text: numbers with sign, scale, unit and bound, in one notation.

`1,000` is `1000`, *forty* is `40`, `2.5 million` is `2500000`, `1e6` is `10⁶`, `½` is `0.5`. Where
notation matters, the number is kept as written: version `3.10` is not version `3.1`.

Not covered: unit conversion, arithmetic, `1.500` for one and a half (it is read as 1500), and most
number names that are written as one word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from llmpipe.retrieval.number_words import (
    ACCENTED,
    CARDINALS,
    FRACTIONS,
    HALVES,
    NUMERALS,
    ONES,
    RATES,
    SPACELESS,
)
from llmpipe.retrieval.unit_words import (
    AT_LEAST,
    AT_MOST,
    OR_LESS,
    OR_MORE,
    SCALES,
    SIGNS,
    UNITS,
)
from llmpipe.words import bare, folded

LONGEST_NUMBER = 40
"""Characters above which a number is compared as written."""
LONGEST_EXPONENT = 3
"""The same for a power of ten's exponent, sign included."""
LONGEST_UNIT = 20
"""How many letters are searched for a word like *times*."""
MONEY = {"m": 6, "b": 9}
"""Powers of ten by letter, beside a currency sign."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its possible readings, its unit and its bound.

    Attributes:
        values: its readings: numbers, and strings where the notation matters.
        unit: name of the unit in `UNITS`; empty if unknown.
        bound: `≥` for *at least* and similar, `≤` for *at most*; empty without one.
        is_year: whether it looks like a year.
    """

    values: frozenset[Fraction | str]
    unit: str = ""
    bound: str = ""
    is_year: bool = False

    def agrees(self, other: Quantity) -> bool:
        """Return whether both can be equal; a unit or bound of only one of them is ignored."""
        return (
            not self.values.isdisjoint(other.values)
            and self.comparable(other)
            and (self.bound == other.bound or not (self.bound and other.bound))
        )

    def comparable(self, other: Quantity) -> bool:
        """Return whether both can have the same unit."""
        return self.unit == other.unit or not (self.unit and other.unit)


def _any_of(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


_WORD = re.compile(r"[^\s\d!-/:-?]+")
_TOUCHING = re.compile(rf"(?<=[{SPACELESS}])(?=\d)|(?<=\d)(?=[{SPACELESS}])")
_LETTER = rf"[^\W_{SPACELESS}]"
_HAN_DIGITS = dict(zip("一二三四五六七八九两兩", [*range(1, 10), 2, 2], strict=True))
_HAN_PLACES = {"十": 10, "百": 100, "千": 1000}
_HAN_NUMERAL = f"[{''.join([*_HAN_DIGITS, *_HAN_PLACES])}]"
_HAN = re.compile(
    rf"(?<!{_HAN_NUMERAL})(?!一[个個位名种種次])({_HAN_NUMERAL}{{1,12}})"
    rf"(?=\s?(?:{_any_of([*UNITS, *SCALES])}|[个個人位名次月号岁歳倍年层層楼路回本台つ]))"
)
_HAN_PERCENT = re.compile(rf"百分之\s?({_HAN_NUMERAL}{{1,12}}|\d+(?:\.\d+)?)")
_HAN_WEEKDAY = re.compile(r"(?:周|週|星期|礼拜|禮拜)[一二三四五六日天]|[月火水木金土日](?=曜)")
_WEEKDAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_HAN_WEEKDAYS = {
    sign: name
    for signs in ("一二三四五六日", "月火水木金土天")
    for sign, name in zip(signs, _WEEKDAYS, strict=True)
}
_ONCE = re.compile(r"\bonce(?= (?:an?|per|every|each|daily|weekly|monthly|yearly)\b)")
_ONE = re.compile(
    "|".join(rf"\b(?:{_any_of(articles)})(?= (?:{_any_of(units)})\b)" for articles, units in ONES)
)
_ONE_AND = re.compile(r"\bone(?= and an? (?:half|quarter|third)\b)")
_RATE = re.compile(rf"(?:\d|\b(?:{_any_of([*UNITS, *RATES])})) $")
_NUMERAL_RUN = re.compile(
    rf"\b(?!third[ -](?:part|person|world))(?:{_any_of(NUMERALS)})"
    rf"(?:(?:[ -]| and | et )(?:{_any_of(NUMERALS)}))*\b"
)
_FRACTION = re.compile(
    rf"\b(?P<count>\d+|an?|one|ein|{_any_of(CARDINALS)})[ -](?P<name>{_any_of(FRACTIONS)})\b"
)
_HALF = re.compile(rf"\b(?:{_any_of(HALVES)})\b")
_AND_PART = re.compile(r"(?<=\d) and (?:an? )?(?=\d+/\d)")
_TIME = re.compile(
    r"(?<![\w.])(\d{1,2})(?:\.(\d{2})(?= ?(?:uhr|o'clock)\b)"
    r"| uhr ([0-5]\d)(?=[.,;:!?)]|\Z)| [时時点點] ?([0-5]?\d) ?分)"
)
_MINUS = re.compile(r"(?<![^\s(])[–—](?=[.\d])|\b(?:minus|moins|menos|meno) (?=[.\d])")
_BOUND = re.compile(
    rf"(?<!\w)(?:(?P<least>{AT_LEAST}|>=?|≥)|{AT_MOST}|<=?|≤)\s?(?=[-.]?\d|[€$£₩₹₽₺]\s?\d)"
)
_BOUND_AFTER = re.compile(rf"\s(?:(?P<least>{OR_MORE})|{OR_LESS})(?!{_LETTER})")
_QUANTITY = re.compile(
    rf"""
    (?P<bound>[≥≤])?
    (?:(?<![^\s(≥≤-])(?P<sign>-))?
    (?:(?P<before>(?<!\w)(?:{_any_of(SIGNS)})\s?)|(?<![\w.^]))
    (?:
        (?P<hour>\d{{1,2}})\s?[:h]\s?(?P<minute>\d{{2}})(?::\d{{2}})?(?P<half>\s?[ap]\.?m\b)?
        | (?P<hour12>\d{{1,2}})(?:\.(?P<minute12>\d{{2}}))?(?P<half12>\s?[ap]\.?m\b)
        | (?:(?P<whole>\d{{1,9}})\s)?
          (?P<over>\d{{1,4}})\s?/\s?(?P<under>[1-9]\d{{0,3}})
        | (?P<number>\d{{1,3}}(?:[ ']\d{{3}})+(?:[.,]\d+)?(?![.,]?\d)|\d+(?:[.,]\d+)*|\.\d+)
          (?![.,]?\d)
          (?:\^(?P<power>[+-]?\d+)|\s?[x×·*]\s?10\^(?P<ten>[+-]?\d+)|e(?P<e>[+-]?\d+))?
          (?:(?:st|nd|rd|th|er|eme|ere)(?!\w))?
    )
    (?(before)(?:\s?(?P<money>[mb])(?!{_LETTER}))?)
    (?:[ -]?(?P<scale>{_any_of(SCALES)})\.?(?!{_LETTER}))?
    (?:[ -]?(?P<after>{_any_of(UNITS)})(?!{_LETTER}))?
    (?!{_LETTER})
    (?P<bound_after>[≥≤])?
    | (?<!\w)(?P<counted>\d+(?:[.,]\d+)*)(?P<what>[^\W\d_]{{2,}})(?!\w)
    | (?<!\w)(?P<code>[^\W\d_]+[-_]?\d+(?:\.\d+)*\w*|\d+[^\W\d_]\w*)
    """,
    re.VERBOSE,
)
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:([.,])\d{3})(?:\1\d{3})*")
_WORD_BEFORE = re.compile(r"([^\W\d_]+)\s\Z")
_YEAR = re.compile(r"1\d{3}|20\d\d")
_NOTATION_COUNTS = re.compile(r"0\d\d+|\d+\.\d*[1-9]\d*0|\d+(?:\.\d+){2,}")
"""Room, article and version numbers."""


LONGEST_WORD = 64
"""How many characters before a number are searched for the word before it."""


def in_digits(text: str) -> str:
    """Return a text in lowercase without accents, with numbers in digits and bounds as signs.

    *At least forty euros* becomes `≥40 euros`.
    """
    text = folded(text)
    for word, meant in ACCENTED.items():
        text = text.replace(word, meant)
    text = _TOUCHING.sub(" ", " ".join(map(bare, text.split())))
    text = _HAN_WEEKDAY.sub(
        lambda match: f" {_HAN_WEEKDAYS[match[0][-1]]} ", _HAN_PERCENT.sub(r" \1 % ", text)
    )
    text = _HAN.sub(lambda match: f" {_han_value(match[0])} ", text)
    words = set(_WORD.findall(text))
    if not words.isdisjoint(FRACTIONS):
        text = _FRACTION.sub(_fraction, text)
    text = _ONE.sub(_one, _ONE_AND.sub("1", _ONCE.sub("1", text)))
    if not words.isdisjoint(NUMERALS):
        text = _NUMERAL_RUN.sub(_digits, text)
    if not words.isdisjoint(HALVES):
        text = _HALF.sub("1/2", text)
    text = _MINUS.sub("-", _AND_PART.sub(" ", text))
    text = _TIME.sub(_with_colon, text)
    return _BOUND_AFTER.sub(_bound, _BOUND.sub(_bound, text))


def quantities(text: str) -> list[Quantity]:
    """Return the quantities of a text in order.

    Args:
        text: a text as `in_digits` returns it.
    """
    return list(map(_quantity, _QUANTITY.finditer(text)))


def _quantity(match: re.Match[str]) -> Quantity:
    if match["code"]:
        return Quantity(frozenset({re.sub("[-_]", "", match["code"])}))
    if match["counted"]:  # 100Mbps
        number = _in_one_notation(match["counted"])
        as_number = number.count(".") < 2 and len(number) <= LONGEST_NUMBER
        return Quantity(frozenset({Fraction(number) if as_number else number}), match["what"])
    if match["hour"] or match["hour12"]:
        return Quantity(frozenset({_time(match)}), UNITS["clock"])
    unit = UNITS.get(match["after"], "") or UNITS.get((match["before"] or "").strip(), "")
    bound = match["bound"] or match["bound_after"] or ""
    may_be_year = not (unit or match["scale"]) and _YEAR.fullmatch(match[0].strip())
    values = {*_values(match, has_unit=bool(unit))}
    if unit == "%" or (match["over"] and not unit):
        values |= {_share(value / 100 if unit else value) for value in _numbers(values)}
    elif match[0].isdigit() and (
        word := _WORD_BEFORE.search(
            match.string[max(0, match.start() - LONGEST_WORD) : match.start()]
        )
    ):
        values.add(f"{word[1]}{match[0]}")  # GPT 4 is GPT-4
    return Quantity(frozenset(values), unit, bound, is_year=bool(may_be_year))


def _numbers(values: Iterable[Fraction | str]) -> Iterator[Fraction]:
    return (value for value in values if isinstance(value, Fraction))


def _share(part: Fraction) -> str:
    """Return the reading of a fraction or percentage: *half of them* is 50 % of them, not 50."""
    return f"{part} of all"


def _values(match: re.Match[str], *, has_unit: bool) -> Iterator[Fraction | str]:
    """Yield the readings of a number; only the written form if it may not be a number."""
    sign = match["sign"] or ""
    if match["over"]:
        part = Fraction(int(match["over"]), int(match["under"]))
        yield (int(match["whole"] or "0") + part) * (-1 if sign else 1)
        return
    number, power = _in_one_notation(match["number"]), match["power"] or ""
    exponent = match["ten"] or match["e"] or "0"
    if number == "10" and power:
        number, power, exponent = "1", "", power
    if power or len(number) > LONGEST_NUMBER or len(exponent) > LONGEST_EXPONENT:
        yield f"{sign}{number}^{power}e{exponent}{match['scale'] or ''}"
        return
    scale = int(exponent) + SCALES.get(match["scale"], 0) + MONEY.get(match["money"], 0)
    if written := _NOTATION_COUNTS.fullmatch(number):
        yield f"{sign}{number}e{scale}"
    if not written or (has_unit and number.count(".") < 2):
        yield Fraction(f"{sign}{number}") * Fraction(10) ** scale


def _in_one_notation(number: str) -> str:
    """Return a number with a decimal point and no other marks."""
    number = number.replace(" ", "").replace("'", "")
    marks = re.findall("[.,]", number)
    if _THOUSANDS.fullmatch(number):
        return re.sub("[.,]", "", number)
    if len(set(marks)) == 2:  # the last one is the decimal mark
        number = number.replace(marks[0], "")
    return number.replace(",", ".")


def _time(match: re.Match[str]) -> Fraction | str:
    """Return a 24-hour time of day: a full hour as a number, other times as a string."""
    hour = int(match["hour"] or match["hour12"])
    minutes = match["minute"] or match["minute12"] or "00"
    if half := match["half"] or match["half12"]:
        hour = hour % 12 + 12 * ("p" in half)
    return Fraction(hour) if minutes == "00" else f"{hour}:{minutes}"


def _with_colon(match: re.Match[str]) -> str:
    return f"{match[1]}:{(match[2] or match[3] or match[4]).zfill(2)}"


def _one(match: re.Match[str]) -> str:
    is_rate = _RATE.search(match.string[: match.start()][-LONGEST_UNIT:])
    return match[0] if is_rate else "1"


def _digits(match: re.Match[str]) -> str:
    before = match.string[: match.start()].rstrip()[-1:]
    if match[0] in SCALES and before.isdigit():  # 5 thousand
        return match[0]
    return " ".join(map(str, _numerals(re.split(r" and | et |[ -]", match[0]))))


def _numerals(words: Iterable[str]) -> Iterator[int]:
    """Yield the numbers that words name; `twenty five` and `two hundred` are one number each."""
    value: int | None = None
    for word in words:
        follows = NUMERALS[word]
        if value is not None and follows in (100, 1000) and value < follows:
            value *= follows
        elif (value, follows) == (4, 20):  # quatre-vingts
            value = 80
        elif value is not None and _goes_on(value, follows):
            value += follows
        else:
            if value is not None:
                yield value
            value = follows
    if value is not None:
        yield value


def _goes_on(value: int, follows: int) -> bool:
    is_french = value % 100 in (60, 80) and 10 <= follows < 20  # soixante-dix
    return is_french or (value >= 20 and value % 10 ** len(str(follows)) == 0)


def _han_value(signs: str) -> int:
    value = digit = 0
    for sign in signs:
        if sign in _HAN_DIGITS:
            digit = digit * 10 + _HAN_DIGITS[sign]
        else:
            value, digit = value + (digit or 1) * _HAN_PLACES[sign], 0
    return value + digit


def _fraction(match: re.Match[str]) -> str:
    count = match["count"]
    return f"{count if count.isdigit() else NUMERALS.get(count, 1)}/{FRACTIONS[match['name']]}"


def _bound(match: re.Match[str]) -> str:
    return "≥" if match["least"] else "≤"
