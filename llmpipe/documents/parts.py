"""The result of every converter, and the rules that all converters follow.

A text has ``\\n`` as its only line ending, and contains no NUL and no lone surrogate. Its sections
follow each other without gaps and cover the whole text.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmpipe.documents.model import Page, Scalar, Section

TITLE_LENGTH = 200
"""Length in characters at which a title is cut."""

_LINE_END = re.compile(r"\r\n?")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Heading(NamedTuple):
    """A heading: its level from 1, its text, and where its line begins.

    A heading of level 0 ends all sections: the text after it belongs to no heading.
    """

    level: int
    title: str
    start: int


@dataclass(frozen=True, slots=True)
class Converted:
    """A file as text; ``title`` is empty if the file has none."""

    text: str
    sections: tuple[Section, ...]
    title: str = ""
    pages: tuple[Page, ...] = ()
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    """Remarks for the user: what was guessed, and what the text lacks."""


def clean(text: str) -> str:
    """Return a text as documents contain it: plain line endings, no byte order mark, no NUL."""
    text = _LINE_END.sub("\n", text.removeprefix("\ufeff"))
    return _SURROGATE.sub("\ufffd", text.replace("\0", ""))


def one_line(text: str) -> str:
    """Return a title as one line of limited length."""
    line = " ".join(clean(text).split())
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1] + "…"


def sections_of(text: str, headings: Iterable[Heading]) -> tuple[Section, ...]:
    """Return the sections into which headings, in order of position, divide a text.

    A heading without text before the next one has no section of its own.
    """
    sections: list[Section] = []
    above: list[Heading] = []
    path: tuple[str, ...] = ()
    start = 0
    for heading in headings:
        if heading.start > start:
            sections.append(Section(path, start, heading.start))
        start = heading.start
        above = [*(outer for outer in above if outer.level < heading.level), heading]
        path = tuple(outer.title for outer in above if outer.level)
    if start < len(text):
        sections.append(Section(path, start, len(text)))
    return tuple(sections)


def scalar(value: Any) -> Scalar | None:
    """Return a value as metadata contains it, or None if it is not a single value."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None


def scalars(values: Mapping[Any, Any]) -> dict[str, Scalar]:
    """Return the single values of a mapping; lists, mappings and nulls are left out."""
    found = ((clean(str(name)), scalar(value)) for name, value in values.items())
    return {name: value for name, value in found if value is not None}
