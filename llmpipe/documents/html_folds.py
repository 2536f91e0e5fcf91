"""Convert parts of a page that open with a click: the control becomes the part's heading.

A question in an accordion becomes the heading of its answer, the name of a tab that of its panel.
The text after the part belongs to the surrounding section again. Marks in the text, which no page
contains, delimit the part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmpipe.documents.parts import Heading

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

OPENS, CLOSES = "\ufdd0", "\ufdd1"
"""Marks for the start and end of a part; Unicode reserves these characters for internal use."""

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")

_COMMAND = re.compile(r"(?i)(?:click|collapse|expand|hide|show|toggle|view)\b")
"""Words for the action of opening, which do not name the part."""

_NESTED = ["blockquote", "dd", "dl", "li", "ol", "table", "td", "ul"]
"""Elements in which Markdown has no headings."""


def write(soup: BeautifulSoup, folds: list[Tag], buttons: list[Tag]) -> None:
    """Write the headings of all parts; ``folds`` are ``details``, ``buttons`` may open panels."""
    panels = dict(_opened(soup, buttons))
    if not folds and not panels:
        return
    parts = {id(fold): _summary(fold) for fold in folds if not fold.decomposed}
    parts |= {id(panel): control for control, panel in panels.values()}
    levels = dict(_levels(soup, parts))
    for part in [*folds, *(panel for _, panel in panels.values())]:
        if id(part) in levels:
            _head(part, parts[id(part)], levels[id(part)])


def unmarked(text: str, headings: list[Heading], marks: list[tuple[int, str]]) -> list[Heading]:
    """Add a heading at the end of each part that continues the surrounding section."""
    above: list[Heading] = []
    around: list[Heading] = []
    found: list[Heading] = []
    events: list[Heading | tuple[int, str]] = sorted([*marks, *headings], key=_place)
    for event in events:
        if isinstance(event, Heading):
            heading = event
        elif event[1] == OPENS:
            around.append(above[-1] if above else Heading(0, "", 0))
            continue
        else:
            outer = around.pop() if around else Heading(0, "", 0)
            heading = outer._replace(start=event[0])
        above = [*(outer for outer in above if outer.level < heading.level), heading]
        found.append(heading)
    return found


def _place(event: Heading | tuple[int, str]) -> tuple[int, bool]:
    return (event.start, True) if isinstance(event, Heading) else (event[0], False)


def _summary(fold: Tag) -> Tag | None:
    return fold.find(lambda tag: tag.get("data-was") == "summary" and tag.parent is fold)


def _opened(soup: BeautifulSoup, buttons: list[Tag]) -> Iterator[tuple[int, tuple[Tag, Tag]]]:
    """Yield the panels that buttons and tabs open, each with its control."""
    for control in buttons:
        if control.decomposed or control.parent is None:
            continue
        panel = _panel(soup, control)
        if panel is None or panel.decomposed:
            continue
        if not _is_in(control, panel) and not _is_in(panel, control):
            yield id(panel), (control, panel)


def _panel(soup: BeautifulSoup, control: Tag) -> Tag | None:
    address = str(control.get("href", "")) if control.get("role") == "tab" else ""
    controls = str(control.get("aria-controls", "")) or address.partition("#")[2]
    for id_ in controls.split():
        return soup.find(id=id_)
    if control.get("data-was") == "label":
        return _beside(control)
    if control.get("role") == "tab":
        return _named_by(soup, control) or _in_order(control)
    classes = " ".join(control.get("class") or ())
    if "aria-expanded" in control.attrs or "accordion" in classes:
        return control.find_next_sibling()
    return None


def _beside(label: Tag) -> Tag | None:
    """Return the part for a label in a list of labels beside a list of parts."""
    strip = label.parent
    if strip is None or strip.parent is None:
        return None
    labels = strip.find_all(True, recursive=False)
    parts = strip.parent.find_all(class_="tabbed-block")
    if len(labels) != len(parts):
        return None
    return next((part for one, part in zip(labels, parts, strict=True) if one is label), None)


def _named_by(soup: BeautifulSoup, tab: Tag) -> Tag | None:
    own = tab.get("id")
    panels = _with_role(soup, "tabpanel") if own else []
    return next((panel for panel in panels if panel.get("aria-labelledby") == own), None)


def _with_role(within: Tag, role: str) -> list[Tag]:
    return within.find_all(lambda tag: tag.get("role") == role)


def _in_order(tab: Tag) -> Tag | None:
    """Return the panel with the same index in its list as a tab."""
    strip = next((parent for parent in tab.parents if parent.get("role") == "tablist"), None)
    if strip is None or strip.parent is None:
        return None
    tabs, panels = _with_role(strip, "tab"), _with_role(strip.parent, "tabpanel")
    if len(tabs) != len(panels):
        return None
    return next(panel for one, panel in zip(tabs, panels, strict=True) if one is tab)


def _levels(soup: BeautifulSoup, parts: dict[int, Tag | None]) -> Iterator[tuple[int, int]]:
    """Yield the level of each part's heading: one below the section that contains it."""
    from bs4 import Tag

    level = 0
    closing: list[tuple[Tag, int]] = []
    for tag in soup.descendants:
        if not isinstance(tag, Tag):
            continue
        while closing and not _is_in(tag, closing[-1][0]):
            level = closing.pop()[1]
        if id(tag) in parts:
            closing.append((tag, level))
            level = max(2, min(level + 1, 6))  # the first heading of level 1 is the title
            yield id(tag), level
        elif tag.name in HEADINGS:
            level = int(tag.name[1])


def _is_in(tag: Tag, part: Tag) -> bool:
    return any(parent is part for parent in tag.parents)


def _head(part: Tag, control: Tag | None, level: int) -> None:
    """Turn the text of a control into a heading and put it above the part that it opens."""
    if control is None or not (words := control.get_text(" ", strip=True)):
        return
    if _COMMAND.match(words) and len(words.split()) <= 4:
        return
    nested = part.find_parent(_NESTED) is not None
    head = control
    if control.find(HEADINGS) is None:  # otherwise the page already has a heading
        head = control.find_parent(HEADINGS) or control
        if head is not control and _is_in(part, head):
            head = control  # that heading is not closed: it contains the whole part
        if head is control:
            head.name = f"h{level}" if not nested else "p"
        if nested:
            _embolden(head)
    if head.parent is not part:
        part.insert(0, head.extract())
    if not nested:
        part.insert(0, _marker(OPENS))
        part.append(_marker(CLOSES))


def _embolden(head: Tag) -> None:
    from bs4 import Tag

    bold = Tag(name="strong")
    bold.extend(list(head.contents))
    head.append(bold)
    head.name = "p"


def _marker(mark: str) -> Tag:
    from bs4 import Tag

    paragraph = Tag(name="p")
    paragraph.string = mark
    return paragraph
