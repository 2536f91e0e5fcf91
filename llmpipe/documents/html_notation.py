"""Write superscripts, subscripts and formulas of a page as text in place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmpipe.documents import mathml, notation

if TYPE_CHECKING:
    from bs4 import Tag

INLINE = {
    "a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "del", "dfn", "em", "font", "i", "ins",
    "kbd", "label", "mark", "q", "s", "samp", "small", "span", "strike", "strong", "time", "tt",
    "u", "var",
}  # fmt: skip
"""Elements that do not end the preceding words."""

NEAR = 80
"""How many characters before a superscript decide what it is."""

_OF_NOTES = {"cite", "footnote", "footnote-ref", "footnote-reference", "footnoteref", "noteref",
             "reference"}  # fmt: skip
SCRIPTS = ("sup", "sub")
_BARS = ("/", "⁄", "∕")


def write_formula(math: Tag) -> None:
    """Replace a MathML formula by text."""
    if not math.decomposed:
        is_block = math.get("display") == "block"
        text = mathml.linear(math)
        math.name, math.attrs = ("div" if is_block else "span"), {}
        math.string = text


def write(tag: Tag) -> None:
    """Replace a superscript, a subscript or a link to a note by text."""
    if tag.decomposed or tag.parent is None:
        return
    for inner in tag.find_all(SCRIPTS):
        write(inner)
    before, after = text_before(tag), text_after(tag)
    content = tag.get_text()
    if tag.name == "sub":
        written = notation.lowered(before, content, after)
    elif _is_fraction(tag):
        written = content if not before[-1:].isalnum() else f" {content}"
    else:
        written = notation.raised(before, content, after, is_note=_is_note(tag))
    if written == content and tag.find("a") is not None:
        tag.unwrap()
    else:
        tag.replace_with(written)


def _is_fraction(tag: Tag) -> bool:
    """Return whether it is the numerator of a fraction; unwrap the denominator if so."""
    from bs4 import Tag

    bar = tag.next_sibling
    if bar is None or bar.get_text().strip() not in _BARS:
        return False
    below = bar.next_sibling
    if not isinstance(below, Tag) or below.name != "sub":
        return False
    bar.replace_with("/")
    following = text_after(below)
    below.replace_with(below.get_text().strip() + (" " if following[:1].isalnum() else ""))
    return True


def _is_note(tag: Tag) -> bool:
    links = tag.find_all("a") if tag.name != "a" else [tag]
    around = tag.find_parent("a")
    if around is not None and around.get_text().strip() == tag.get_text().strip():
        links.append(around)
    for link in links:
        address = str(link.get("href", "")).lower()
        if address.startswith("#") or link.get("role") == "doc-noteref":
            return True
        if any(word in address.partition("#")[2] for word in ("fn", "note", "cite", "ref")):
            return True
        if tag.name == "a":
            return True
    return not _OF_NOTES.isdisjoint(tag.get("class") or ())


def text_before(tag: Tag) -> str:
    """Return the end of the text before an element in its own paragraph."""
    pieces: list[str] = []
    for piece in _neighbors(tag, "previous_sibling"):
        pieces.append(piece)
        if sum(map(len, pieces)) > NEAR:
            break
    return "".join(reversed(pieces))[-NEAR:]


def text_after(tag: Tag) -> str:
    return next((piece for piece in _neighbors(tag, "next_sibling") if piece), "")


def _neighbors(tag: Tag, direction: str) -> Iterator[str]:
    """Yield the texts beside an element, nearest first, up to the next block or script."""
    from bs4 import Tag
    from bs4.element import NavigableString, PreformattedString

    here: Tag | None = tag
    while here is not None:
        other = getattr(here, direction)
        while other is not None:
            if isinstance(other, Tag):
                if other.name not in INLINE:
                    if other.name in SCRIPTS and direction == "previous_sibling":
                        yield other.get_text()
                        other = getattr(other, direction)
                        continue
                    return
                yield other.get_text()
            elif isinstance(other, NavigableString) and not isinstance(other, PreformattedString):
                yield str(other)
            other = getattr(other, direction)
        if here.parent is None or here.parent.name not in INLINE:
            return
        here = here.parent
