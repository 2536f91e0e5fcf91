"""Number lists and headings as Word does.

A list continues after a paragraph between its items. Two lists with the same definition share
counters, unless one of them restarts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmpipe.documents.docx_names import Styles, W, integer, number_of, switched, value_of
from llmpipe.documents.numbers import repeated, roman

_PLACE = re.compile(r"%([1-9])")


@dataclass(frozen=True, slots=True)
class Level:
    """How the items of a level are counted and displayed."""

    start: int = 1
    format: str = "decimal"
    text: str = ""
    style: str | None = None
    restarts_after: int | None = None
    plain: bool = False
    """Whether the numbers of higher levels are shown as digits, whatever their own format."""


@dataclass(slots=True)
class Definition:
    """The levels that lists share, and their counters."""

    levels: dict[int, Level] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    link: str | None = None


class Numbers:
    """Numbers the paragraphs of a document, in order."""

    def __init__(self, root: Any, styles: Styles) -> None:
        self._styles = styles
        self._definitions: dict[str, Definition] = {}
        self._lists: dict[str, tuple[Definition, dict[int, Level], dict[int, int]]] = {}
        if root is not None:
            self._read(root)

    def of(self, paragraph: Any) -> str | None:
        """Count a paragraph and return its displayed number, or None outside a numbered list."""
        properties = paragraph.find(W + "pPr")
        style = value_of(properties, "pStyle")
        number = number_of(properties) or self._styles.value(style, "number")
        if number is None or number[0] not in self._lists:
            return None
        definition, levels, starts = self._lists[number[0]]
        level = number[1]
        if level < 0:
            level = next((at for at, one in levels.items() if style and one.style == style), 0)
        shown = levels.get(level)
        if shown is None or shown.format == "bullet":
            return None
        self._count(definition, levels, level, starts)
        return _label(levels, level, definition.counts)

    def _count(
        self,
        definition: Definition,
        levels: Mapping[int, Level],
        level: int,
        starts: dict[int, int],
    ) -> None:
        counts = definition.counts
        if level in starts:  # a list's own start value applies once
            counts[level] = starts.pop(level)
        elif level in counts:
            counts[level] += 1
        else:
            counts[level] = levels[level].start
        for deeper in [at for at in counts if at > level]:
            after = levels[deeper].restarts_after if deeper in levels else None
            if after is None or (after and level < after):
                del counts[deeper]

    def _read(self, root: Any) -> None:
        for element in root.findall(W + "abstractNum"):
            definition = Definition(link=value_of(element, "numStyleLink"))
            definition.levels = dict(map(_level, element.findall(W + "lvl")))
            self._definitions[element.get(W + "abstractNumId", "")] = definition
        by_style = {
            value_of(element, "styleLink"): self._definitions[element.get(W + "abstractNumId", "")]
            for element in root.findall(W + "abstractNum")
        }
        for element in root.findall(W + "num"):
            known = self._definitions.get(value_of(element, "abstractNumId") or "")
            if known is not None and known.link:
                known = by_style.get(known.link, known)
            if known is None:
                continue
            levels, starts = dict(known.levels), dict[int, int]()
            for override in element.findall(W + "lvlOverride"):
                at = integer(override.get(W + "ilvl"), 0)
                own = override.find(W + "lvl")
                if own is not None:
                    levels[at] = _level(own)[1]
                start = value_of(override, "startOverride")
                if start is not None:
                    starts[at] = integer(start, 1)
            self._lists[element.get(W + "numId", "")] = (known, levels, starts)


def _level(element: Any) -> tuple[int, Level]:
    at = integer(element.get(W + "ilvl"), 0)
    restart = value_of(element, "lvlRestart")
    text = value_of(element, "lvlText")
    return at, Level(
        start=integer(value_of(element, "start"), 1),
        format=value_of(element, "numFmt") or "decimal",
        text=f"%{at + 1}." if text is None else text,
        style=value_of(element, "pStyle"),
        restarts_after=None if restart is None else integer(restart, 0),
        plain=bool(switched(element, "isLgl")),
    )


def _label(levels: Mapping[int, Level], level: int, counts: Mapping[int, int]) -> str:
    own = levels[level]
    if own.format == "none":
        return _PLACE.sub("", own.text).strip()

    def shown(match: re.Match[str]) -> str:
        at = int(match[1]) - 1
        of_level = levels.get(at, Level())
        number = counts.get(at, of_level.start)
        kind = "decimal" if own.plain else of_level.format
        return _FORMATS.get(kind, str)(number)

    return _PLACE.sub(shown, own.text).strip()


def _ordinal(number: int) -> str:
    teens = 10 <= number % 100 < 20
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


_FORMATS: Mapping[str, Callable[[int], str]] = {
    "decimalZero": "{:02d}".format,
    "lowerLetter": repeated,
    "lowerRoman": roman,
    "none": lambda number: "",
    "ordinal": _ordinal,
    "upperLetter": lambda number: repeated(number).upper(),
    "upperRoman": lambda number: roman(number).upper(),
}
