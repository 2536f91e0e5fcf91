"""Where sentences lie in a text.

Lines that are only wrapped belong together; an empty line, the next item of a list or row of a
table ends a sentence, as a heading has no full stop. A full stop before a small letter ends none
("e.g. this"), nor does one in a date ("5. März") or between an abbreviation and a number
("Art. 5").
"""

from __future__ import annotations

import re

from llmpipe.retrieval.dates import begins_with_a_date
from llmpipe.retrieval.quantities import in_digits

NEAR = 20
"""Characters around a full stop that tell what it is."""

_DAY = re.compile(r"(?<![\d.,])\d{1,2}\.$")
_ABBREVIATED = re.compile(
    r"(?i)\b(?:abb|abs|approx|art|bd|ca|ch|eq|fig|figs|kap|no|nos|nr|num|p|pp|pos|sec|tab|vol|vols"
    r"|jan|feb|mar|apr|aug|sept?|oct|okt|nov|dec|dez)\.$"
)
"""Abbreviations that stand before a number."""
_BREAK = re.compile(
    r"""
    (?<=[.!?…])["'”’»)\]]*(?P<gap>\s+)     # the end of a sentence, perhaps of a quoted one
    | (?<=[。！？])                          # scripts without spaces
    | \n[^\S\n]*(?:\n\s*)                   # an empty line
    | \n(?=[^\S\n]*(?:[-*+•]|\d+[.)])\s)    # the next item of a list
    | \n(?=[^\S\n]*\|)                     # the next row of a table
    | (?<=\|)\n                            # the end of the last one
    """,
    re.VERBOSE,
)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Give the start and end of every sentence, without the white space around it."""
    spans, start = [], 0
    for match in _BREAK.finditer(text):
        if match["gap"] and "\n\n" not in match["gap"] and _goes_on(text, match):
            continue
        end = match.start("gap") if match["gap"] else match.start()
        spans.append(_trimmed(text, start, end))
        start = match.end()
    spans.append(_trimmed(text, start, len(text)))
    return [(start, end) for start, end in spans if start < end]


def _goes_on(text: str, match: re.Match[str]) -> bool:
    """Tell whether a full stop ends no sentence: before a small letter, in a date, after *Art.*"""
    after = text[match.end() : match.end() + NEAR]
    if after[:1].islower():
        return True
    before = text[max(0, match.start() - NEAR) : match.start()]
    if after[:1].isdigit():
        return bool(_ABBREVIATED.search(before))
    day = _DAY.search(before)
    return day is not None and begins_with_a_date(in_digits(f"{day[0]} {after}"))


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), start + len(part.rstrip())
