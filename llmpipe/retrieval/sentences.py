"""Find the sentences of a text.

Wrapped lines belong together. An empty line, a list item or a table row ends a sentence, because a
heading has no period. A period does not end a sentence before a lowercase letter ("e.g.
this"), in a date ("5. März") or between an abbreviation and a number ("Art. 5").
"""

from __future__ import annotations

import re

from llmpipe.retrieval.dates import begins_with_a_date
from llmpipe.retrieval.quantities import in_digits

NEAR = 20
"""How many characters around a period are examined."""

_DAY = re.compile(r"(?<![\d.,])\d{1,2}\.$")
_ABBREVIATED = re.compile(
    r"(?i)\b(?:abb|abs|approx|art|bd|ca|ch|eq|fig|figs|kap|no|nos|nr|num|p|pp|pos|sec|tab|vol|vols"
    r"|jan|feb|mar|apr|aug|sept?|oct|okt|nov|dec|dez)\.$"
)
"""Abbreviations that come before a number."""
_BREAK = re.compile(
    r"""
    (?<=[.!?…])["'”’»)\]]*(?P<gap>\s+)     # the end of a sentence, possibly of a quoted one
    | (?<=[。！？])                          # scripts without spaces
    | \n[^\S\n]*(?:\n\s*)                   # an empty line
    | \n(?=[^\S\n]*(?:[-*+•]|\d+[.)])\s)    # the next list item
    | \n(?=[^\S\n]*\|)                     # the next table row
    | (?<=\|)\n                            # the end of the last table row
    """,
    re.VERBOSE,
)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return the start and end of every sentence, without surrounding whitespace."""
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
    """Return whether a sentence continues: before lowercase, in a date, after *Art.*"""
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
