"""Names in Word's XML, and the styles that format text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"

DEEPEST_STYLE = 20
"""How many styles may be based on each other."""

SMALLER = 0.9
"""Largest size of superscript letters as a share of the letters beside them."""

CLEARLY_MOVED = 4
"""Half points from which letters of normal size count as raised or lowered."""

HEADING = "heading "
"""Prefix of the names of heading styles."""


@dataclass(slots=True)
class Style:
    """The properties of a style that affect text; ``None`` means inherited."""

    name: str = ""
    based_on: str = ""
    hidden: bool | None = None
    raised: str | None = None
    number: tuple[str, int] | None = None


@dataclass(slots=True)
class Styles:
    """The styles of a document by their ids."""

    by_id: dict[str, Style] = field(default_factory=dict)

    def value(self, id_: str | None, attribute: str) -> Any:
        """Return a property of a style, or of the nearest style it is based on that has one."""
        for _ in range(DEEPEST_STYLE):
            style = self.by_id.get(id_ or "")
            if style is None:
                return None
            value = getattr(style, attribute)
            if value is not None:
                return value
            id_ = style.based_on
        return None

    def is_heading(self, id_: str | None) -> bool:
        """Return whether a style is a heading style."""
        style = self.by_id.get(id_ or "")
        return style is not None and style.name.lower().startswith(HEADING)


def read_styles(root: Any) -> Styles:
    """Return the styles of ``word/styles.xml``."""
    found = Styles()
    if root is None:
        return found
    for element in root.iter(W + "style"):
        properties = element.find(W + "rPr")
        found.by_id[element.get(W + "styleId", "")] = Style(
            name=value_of(element, "name") or "",
            based_on=value_of(element, "basedOn") or "",
            hidden=switched(properties, "vanish"),
            raised=raised_of(properties),
            number=number_of(element.find(W + "pPr")),
        )
    return found


def raised_of(properties: Any, beside: int | None = None) -> str | None:
    """Return whether properties raise or lower text, or None if they do not say.

    LibreOffice writes a superscript as smaller letters that are moved up. Moved letters that are
    as large as those ``beside`` them (in half points, if known) are only aligned.
    """
    said = value_of(properties, "vertAlign")
    moved = integer(value_of(properties, "position"), 0)  # half points
    size = integer(value_of(properties, "sz"), 0)
    is_smaller = bool(size) and (beside is None or size <= SMALLER * beside)
    if said or not moved or (not is_smaller and abs(moved) < CLEARLY_MOVED):
        return said
    return "superscript" if moved > 0 else "subscript"


def number_of(properties: Any) -> tuple[str, int] | None:
    """Return the list and level that paragraph properties name."""
    if properties is None:
        return None
    numbering = properties.find(W + "numPr")
    if numbering is None:
        return None
    list_ = value_of(numbering, "numId")
    level = value_of(numbering, "ilvl")
    return None if list_ is None else (list_, integer(level, -1))


def value_of(element: Any, name: str) -> str | None:
    """Return the value of a child element, or None."""
    child = None if element is None else element.find(W + name)
    return None if child is None else str(child.get(W + "val", ""))


def switched(element: Any, name: str) -> bool | None:
    """Return whether a property is on; None if it is absent."""
    child = None if element is None else element.find(W + name)
    return None if child is None else child.get(W + "val", "1") not in ("0", "false", "off")


def integer(text: str | None, otherwise: int) -> int:
    """Parse an integer as Word writes it, or return ``otherwise``."""
    try:
        return int(text or "")
    except ValueError:
        return otherwise
