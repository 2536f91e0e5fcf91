"""Find text that a page's styles raise or lower: powers, indices and note marks.

Only the few declarations that move letters are read from a style sheet. Elements are first looked
up by the last class, id or name of a selector, then matched against the whole selector.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from llmpipe.documents.html_notation import INLINE, SCRIPTS, text_after, text_before

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

Linked = Callable[[str], str]
"""Returns the style sheet at an address, or an empty string."""

MOVED = 0.1
"""Least shift of a script in small letters, as a share of the line's font size."""

MOVED_LARGE = 0.2
"""Least shift of a script in letters of normal size."""

SMALLER = 0.9
"""Largest font size of small letters, as a share of normal size."""

LONGEST = 300
"""Length limit of a selector, in characters."""

SMALL_WORDS = {"smaller", "small", "x-small", "xx-small"}

PROPERTIES = {"bottom", "font-size", "position", "top", "vertical-align"}

_UNMOVED = {"0", "baseline", "bottom", "inherit", "middle", "text-bottom"}
_UNITS = {"%": 0.01, "em": 1, "ex": 0.5, "pt": 1 / 12, "px": 1 / 16, "rem": 1}
_LENGTH = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(%|[a-z]+)")
_SKIPPED = re.compile(r"<!--|-->|<!\[CDATA\[|\]\]>")
_COMBINED = re.compile(r"[\s>+~]+")
_KEY = re.compile(r"[.#][\w-]+|\A[\w-]+")


class Rule(NamedTuple):
    """A selector and its declarations."""

    selector: str
    key: str
    """A class (``.name``), an id (``#name``) or an element name that selected elements have."""
    declared: dict[str, str]


class Styles:
    """The style sheets of a page."""

    def __init__(self, soup: BeautifulSoup, linked: Linked | None = None) -> None:
        """Read the style sheets; ``linked`` returns those that the page links to."""
        rules = [rule for css in _sheets(soup, linked) for rule in _rules(css)]
        self._moving = {rule.key for rule in rules if _may_move(rule.declared)}
        self._rules: dict[str, list[tuple[int, Rule]]] = defaultdict(list)
        for number, rule in enumerate(rules if self._moving else ()):
            self._rules[rule.key].append((number, rule))

    def script(self, tag: Tag) -> str:
        """Return ``sup`` or ``sub`` if an element is raised or lowered, else an empty string."""
        style = tag.attrs.get("style")
        keys = self._keys(tag) if self._moving else []
        is_moved = not self._moving.isdisjoint(keys)
        if not (style or is_moved) or tag.name not in INLINE:
            return ""
        declared: dict[str, str] = {}
        if is_moved:
            found = [each for key in keys for each in self._rules.get(key, ())]
            for _, rule in sorted(found, key=lambda each: (_weight(each[1].selector), each[0])):
                if _selects(rule.selector, tag):
                    declared |= rule.declared
        declared |= _declared(str(style or ""))
        return _script(declared, tag) if declared and not _is_one(tag) else ""

    @staticmethod
    def _keys(tag: Tag) -> list[str]:
        classes = [f".{name}" for name in tag.attrs.get("class") or ()]
        return [tag.name, *classes, *([f"#{tag.attrs['id']}"] if "id" in tag.attrs else [])]


def _sheets(soup: BeautifulSoup, linked: Linked | None) -> Iterator[str]:
    for tag in soup.find_all(["style", "link"]):
        if "print" in str(tag.attrs.get("media", "")):
            continue
        if tag.name == "style":
            yield tag.get_text()
        elif linked is not None and tag.attrs.get("rel") == ["stylesheet"]:
            yield linked(str(tag.attrs.get("href", "")))


@lru_cache(maxsize=16)
def _rules(css: str) -> tuple[Rule, ...]:
    """Return the rules of a style sheet; empty if none of them can move letters."""
    lower = css.lower()
    if "vertical-align" not in lower and "relative" not in lower:
        return ()
    found = []
    first, *others = _SKIPPED.sub("", css).split("/*")
    css = "".join([first, *(part.partition("*/")[2] for part in others)])
    for block in css.split("}"):
        before, _, body = block.rpartition("{")
        declared = _declared(body)
        if not declared:
            continue
        for selector in before.rpartition("{")[2].rpartition(";")[2].split(","):
            selector = selector.strip()
            parts = _COMBINED.split(selector[-LONGEST:])
            key = _KEY.search(parts[-1])
            if not key or "::" in selector or len(selector) > LONGEST:
                continue
            if key[0][0] in ".#" or key[0] in INLINE:
                found.append(Rule(selector, key[0], declared))
    return tuple(found)


def _declared(body: str) -> dict[str, str]:
    parts = (part.partition(":") for part in body.lower().split(";"))
    pairs = ((name.strip(), value.partition("!")[0].strip()) for name, _, value in parts)
    return {name: value for name, value in pairs if name in PROPERTIES}


def _may_move(declared: dict[str, str]) -> bool:
    if declared.get("vertical-align", "baseline") not in _UNMOVED:
        return True
    return any(_length(declared.get(side, "")) for side in ("top", "bottom"))


def _weight(selector: str) -> tuple[int, int]:
    return selector.count("#"), selector.count(".") + selector.count("[")


def _selects(selector: str, tag: Tag) -> bool:
    compiled = _compiled(selector)
    return compiled is not None and bool(compiled.match(tag))


@lru_cache(maxsize=1000)
def _compiled(selector: str) -> Any:
    import soupsieve

    try:
        return soupsieve.compile(selector)
    except (soupsieve.SelectorSyntaxError, NotImplementedError, ValueError):  # ::before, newer ones
        return None


def _is_one(tag: Tag) -> bool:
    """Return whether an element is already inside a script, or contains one."""
    return tag.find_parent(SCRIPTS) is not None or tag.find(SCRIPTS) is not None


def _script(declared: dict[str, str], tag: Tag) -> str:
    align = declared.get("vertical-align", "")
    if align in ("super", "sub"):
        return "sup" if align == "super" else "sub"
    is_small = _is_small(declared.get("font-size", ""))
    moved = _length(align)
    if align in ("top", "text-top") and is_small:
        moved = 1
    if not moved and declared.get("position") == "relative" and is_small:
        moved = _length(declared.get("bottom", "")) - _length(declared.get("top", ""))
    if abs(moved) < (MOVED if is_small else MOVED_LARGE) or not _follows(tag):
        return ""
    return "sup" if moved > 0 else "sub"


def _is_small(size: str) -> bool:
    return size in SMALL_WORDS or 0 < _length(size) <= SMALLER


def _length(written: str) -> float:
    found = _LENGTH.fullmatch(written)
    return float(found[1]) * _UNITS.get(found[2], 0) if found else 0


def _follows(tag: Tag) -> bool:
    """Return whether an element's text follows without a space, or is a number beside a word."""
    text = tag.get_text()
    if not text.strip() or tag.find(["img", "br", "p", "div", "table"]) is not None:
        return False
    before = text_before(tag)
    if before and not before[-1].isspace() and not text[0].isspace():
        return True
    return text.strip().isdigit() and (not before or text_after(tag)[:1].isalpha())
