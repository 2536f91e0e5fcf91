"""Where sentences lie in a text.

Lines that are only wrapped belong together; an empty line, the next item of a list or row of a
table ends a sentence, as a heading has no full stop. A full stop before a small letter ends none
("e.g. this").
"""

from __future__ import annotations

import re

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
        if match["gap"] and "\n\n" not in match["gap"] and text[match.end() :][:1].islower():
            continue
        end = match.start("gap") if match["gap"] else match.start()
        spans.append(_trimmed(text, start, end))
        start = match.end()
    spans.append(_trimmed(text, start, len(text)))
    return [(start, end) for start, end in spans if start < end]


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), start + len(part.rstrip())
