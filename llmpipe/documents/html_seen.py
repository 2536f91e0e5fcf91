"""Keep what a reader sees of a page: hidden parts and navigation are removed, forms become text.

A part that a click opens (a tab, an accordion) counts as seen. If text is there twice, for display
and for screen readers, the version for screen readers is kept.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from llmpipe.documents.html_notation import INLINE
from llmpipe.documents.html_styles import Linked, Styles
from llmpipe.documents.html_tables import STEPS, is_navigation, step

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

UNREAD = {
    "audio", "canvas", "datalist", "embed", "head", "iframe", "link", "meta", "noscript", "object",
    "param", "progress", "meter", "script", "style", "svg", "template", "video",
}  # fmt: skip
"""Elements without readable text."""

BLOCKS = {
    "address", "article", "aside", "body", "button", "center", "details", "dialog", "dir",
    "fieldset", "figure", "footer", "form", "header", "hgroup", "label", "legend", "main", "menu",
    "optgroup", "option", "search", "section", "select", "summary", "textarea",
}  # fmt: skip
"""Elements that take lines of their own, besides those with a form in Markdown."""

INLINE_TOO = {"button", "label"}
"""Of these, elements that are inline if there is text around them."""

COLLECTED = {"details", "math", "pre", "sub", "sup", "table"}
"""Elements that are converted after the walk."""

SCOPES = {
    "article", "aside", "blockquote", "details", "dialog", "fieldset", "figure", "main", "section",
    "td",
}  # fmt: skip
"""Elements with their own header and footer, which are not those of the page."""

NAVIGATION = {"banner", "contentinfo", "directory", "menu", "menubar", "navigation", "search"}
"""Roles of navigation and of frames that every page shares."""

NAVIGATION_CLASSES = {"breadcrumb", "breadcrumbs", "nav-panel", "navbar", "navfooter", "navheader",
                      "skip-link", "sphinxsidebar"}  # fmt: skip

FOR_SCREEN_READERS = {
    "a-offscreen", "cdk-visually-hidden", "katex-mathml", "mwe-math-mathml-inline",
    "screen-reader-text", "sr-only", "visually-hidden", "visuallyhidden",
}  # fmt: skip
"""Classes of text for screen readers only."""

TYPED = {"button", "date", "email", "number", "reset", "submit", "tel", "text", "time", "url", ""}
"""Input types that display their value."""

CONTROLS = ("aria-controls", "data-target", "data-bs-target")
"""Attributes that name what a click opens."""

PERMALINKS = {"¶", "#", "§", "🔗", "\uf0c1", "↑", "↩", "↩︎", "⏎", "⇑"}
"""Texts of links from headings to themselves, and of links back from notes."""

DEEPEST = 100
"""How deep elements may be nested; of deeper ones only the text is kept."""

_LINES = ["p", "div", "ul", "center", "td", "li"]
_COPIES = re.compile(r"(?i)cop(?:y|ied)\b(?:\s\w+){0,3}!?")
_HIDDEN = re.compile(r"display:none|visibility:hidden")
_OWN_LINES = {"block", "flex", "flow-root", "grid", "list-item", "table", "table-caption",
              "table-row"}  # fmt: skip
_OF_ITEMS = {"flex", "grid", "inline-flex", "inline-grid"}
_DISPLAY = re.compile(r"(?i)(?:^|;)\s*display\s*:\s*([a-z-]+)")


class Seen:
    """One walk over a page that removes what is not seen and collects elements to convert."""

    def __init__(
        self, soup: BeautifulSoup, *, navigation: bool = False, linked: Linked | None = None
    ) -> None:
        """Walk over a page.

        Args:
            soup: the page.
            navigation: keep navigation; some pages contain nothing else.
            linked: returns a linked style sheet.
        """
        self._soup = soup
        self._styles = Styles(soup, linked)
        self._navigation = navigation
        self._opened: set[str] | None = None
        self.found: dict[str, list[Tag]] = defaultdict(list)
        """Collected elements by kind, in page order."""
        self._walk(soup, 0, scoped=False)
        if not navigation:
            _drop_steps(self.found["step"])

    def _walk(self, parent: Tag, depth: int, *, scoped: bool) -> None:
        from bs4 import Tag

        holds_items = _display(parent) in _OF_ITEMS
        for tag in [child for child in parent.contents if isinstance(child, Tag)]:
            if self._is_gone(tag, scoped):
                tag.decompose()
                continue
            if depth >= DEEPEST:
                _flatten(tag)
                continue
            self._raise(tag)
            self._note(tag)
            self._walk(tag, depth + 1, scoped=scoped or tag.name in SCOPES)
            if tag.name in BLOCKS or "-" in tag.name:
                self._as_block(tag)
            elif tag.name in INLINE or tag.name == "img":
                _place(tag, is_item=holds_items)

    def _raise(self, tag: Tag) -> None:
        """Turn an element into a superscript or subscript if the styles display it as one."""
        from bs4 import Tag

        script = self._styles.script(tag)
        if script and tag.name == "a":
            self.found[script].append(tag.wrap(Tag(name=script)))  # it is also a link
        elif script:
            tag.name = script

    def _is_gone(self, tag: Tag, scoped: bool) -> bool:
        name, attributes = tag.name, tag.attrs
        if name in UNREAD:
            return not (self._keeps_formula(tag) or _keeps_labels(tag))
        if name == "input":
            return self._field(tag)
        if name == "button" and _COPIES.fullmatch(tag.get_text().strip()):
            return True
        if name == "header" and not scoped:
            return self._frames(tag)
        if name in ("nav", "footer"):
            is_kept = (scoped and name == "footer") or _holds_tabs(tag)
            return not self._navigation and not is_kept
        if name == "table" and not self._navigation and is_navigation(tag):
            return True
        return bool(attributes) and self._is_gone_by_attributes(tag)

    def _is_gone_by_attributes(self, tag: Tag) -> bool:
        attributes = tag.attrs
        if "hidden" in attributes and attributes["hidden"] != "until-found":
            return not self._is_opened(tag)
        style = attributes.get("style")
        if style:
            flat = str(style).replace(" ", "").lower()
            if _HIDDEN.search(flat):
                return not self._is_opened(tag)
        if attributes.get("aria-hidden") == "true" and self._is_double(tag):
            return True
        if _is_permalink(tag):
            return True
        if self._navigation:
            return False
        role = attributes.get("role")
        if role and role in NAVIGATION:
            return role != "banner" or self._frames(tag)
        return not NAVIGATION_CLASSES.isdisjoint(attributes.get("class") or ())

    def _frames(self, tag: Tag) -> bool:
        """Return whether a header is shared by all pages; one with a heading is the page's own."""
        return not self._navigation and tag.find(["h1", "h2"]) is None

    def _keeps_formula(self, tag: Tag) -> bool:
        if tag.name != "script" or not str(tag.get("type", "")).startswith("math/tex"):
            return False
        tag.name = "code"
        return True

    def _field(self, tag: Tag) -> bool:
        """Replace a field by what it displays; return whether it displays nothing."""
        kind = str(tag.get("type", "")).lower()
        if kind in ("checkbox", "radio"):
            if kind == "checkbox" and "disabled" in tag.attrs:  # the box of a task list
                tag.replace_with("[x] " if "checked" in tag.attrs else "[ ] ")
                return False
            return True
        value = str(tag.get("value", "")).strip() if kind in TYPED else ""
        if not value:
            return True
        tag.replace_with(f" {value} ")
        return False

    def _is_opened(self, tag: Tag) -> bool:
        """Return whether a click shows a hidden part."""
        if tag.get("role") == "tabpanel":
            return True
        own = str(tag.get("id", ""))
        if not own:
            return False
        if self._opened is None:
            self._opened = {
                id_.removeprefix("#")
                for control in self._soup.find_all(True)
                for attribute in CONTROLS
                for id_ in str(control.attrs.get(attribute, "")).split()
            }
        return own in self._opened

    def _is_double(self, tag: Tag) -> bool:
        """Return whether text hidden from screen readers is repeated beside it, or has no words."""
        text = tag.get_text().strip()
        if not any(letter.isalnum() for letter in text) or tag.name == "i":
            return True
        if tag.get("role") in ("dialog", "alertdialog") or "modal" in (tag.get("class") or ()):
            return True
        parent = tag.parent
        if parent is None or parent.get("aria-label"):
            return True
        return _speaks(tag.find_previous_sibling()) or _speaks(tag.find_next_sibling())

    def _note(self, tag: Tag) -> None:
        name = tag.name
        if name in COLLECTED:
            self.found[name].append(tag)
        elif name == "a" and (
            tag.get("role") == "doc-noteref" or tag.get("epub:type") == "noteref"
        ):
            self.found["sup"].append(tag)
        elif _is_control(tag):
            self.found["button"].append(tag)
        elif name == "rt" and tag.find_previous_sibling("rp") is None:
            tag.string = f"({tag.get_text()})"  # the reading of characters must not touch them
        if name == "a" and (step(tag) or "rel" in tag.attrs or "accesskey" in tag.attrs):
            self.found["step"].append(tag)

    def _as_block(self, tag: Tag) -> None:
        if tag.name in INLINE_TOO and _is_in_a_line(tag):
            _part_words(tag)
            tag.name = "span"
        elif tag.name not in ("article", "section", "details", "body"):
            tag["data-was"] = tag.name
            tag.name = "div"


def _display(tag: Tag) -> str:
    """Return the display value in an element's own style."""
    style = tag.attrs.get("style")
    found = _DISPLAY.search(str(style)) if style else None
    return found[1].lower() if found else ""


def _place(tag: Tag, *, is_item: bool) -> None:
    """Put an inline element on lines of its own, or apart from others, if its style does so."""
    from bs4 import Tag

    display = _display(tag)
    if display in _OWN_LINES:
        if tag.name == "span":
            tag.name = "div"
        else:  # it is also a link, or bold
            tag.wrap(Tag(name="div"))
    elif (is_item or display == "table-cell") and tag.find_parent("pre") is None:
        _part_words(tag)


def _flatten(tag: Tag) -> None:
    """Replace elements that are nested too deeply for recursion by plain text."""
    for inner in tag.find_all(list(UNREAD)):
        if not inner.decomposed:
            inner.decompose()
    tag.string = tag.get_text(" ")


def _is_control(tag: Tag) -> bool:
    """Return whether a click on an element may open something."""
    if tag.name == "label" and tag.parent is not None:
        return "tabbed-labels" in (tag.parent.get("class") or ())
    return tag.name == "button" or tag.attrs.get("role") == "tab"


def _keeps_labels(tag: Tag) -> bool:
    """Replace a drawing by the words in it; return whether there are any."""
    if tag.name != "svg" or tag.get("aria-hidden") == "true":
        return False
    words = [part.get_text(" ", strip=True) for part in tag.find_all(["text", "foreignobject"])]
    if not any(words):
        return False
    tag.name, tag.attrs = "div", {}
    tag.string = " ".join(words)
    return True


def _holds_tabs(tag: Tag) -> bool:
    roles = (tag, *tag.find_all(True))
    return any(part.get("role") == "tablist" for part in roles)


def _drop_steps(links: list[Tag]) -> None:
    """Remove lines that contain only links to neighboring pages."""
    lines = {id(line): line for link in links if (line := link.find_parent(_LINES)) is not None}
    for line in lines.values():
        if line.decomposed or line.find([*_LINES, "table", "pre"]) is not None:
            continue
        steps = [link for link in line.find_all("a") if any(link is one for one in links)]
        linked = {id(text) for link in line.find_all("a") for text in link.find_all(string=True)}
        rest = " ".join(str(text) for text in line.find_all(string=True) if id(text) not in linked)
        others = {word for word in re.split(r"[\W_]+", rest.lower()) if word}
        if len(steps) > 1 and others <= STEPS:
            line.decompose()


def _is_permalink(tag: Tag) -> bool:
    is_local = tag.name == "a" and str(tag.attrs.get("href", "")).startswith("#")
    return is_local and tag.get_text().strip() in PERMALINKS


def _speaks(tag: Tag | None) -> bool:
    """Return whether an element has text for a screen reader."""
    if tag is None:
        return False
    return tag.name == "math" or not FOR_SCREEN_READERS.isdisjoint(tag.get("class") or ())


def _is_in_a_line(tag: Tag) -> bool:
    if tag.find_parent(["h1", "h2", "h3", "h4", "h5", "h6", "p"]) is not None:
        return True
    return any(isinstance(beside, str) and beside.strip() for beside in _beside(tag))


def _beside(tag: Tag) -> tuple[object, object]:
    return tag.previous_sibling, tag.next_sibling


def _part_words(tag: Tag) -> None:
    """Put spaces around an inline element that looks like a block."""
    before, after = _beside(tag)
    if before is not None and not (isinstance(before, str) and before[-1:].isspace()):
        tag.insert_before(" ")
    if after is not None and not (isinstance(after, str) and after[:1].isspace()):
        tag.insert_after(" ")
