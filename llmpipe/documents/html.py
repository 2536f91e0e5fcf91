"""HTML: what a reader of the page would see, as Markdown.

Scripts, styles, navigation and hidden elements go; where the page marks its main part, only that is
taken. Links keep their address where it is a whole one, images are what their description says.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from llmpipe.documents import markdown
from llmpipe.documents.parts import Converted, clean, one_line
from llmpipe.documents.plain import decode
from llmpipe.errors import StageError

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

UNREAD = (
    "audio", "button", "canvas", "embed", "form", "iframe", "input", "link", "meta", "nav",
    "noscript", "object", "script", "select", "style", "svg", "template", "textarea", "video",
)  # fmt: skip
"""Elements that hold nothing to read."""

MOST_TAGS = 500_000
"""Tags of one page; each takes some kilobytes of memory."""

DEEPEST = 100
"""How deep elements may be nested; the structure of what lies deeper is not kept, its text is."""

PERMALINKS = {"¶", "#", "§", "🔗", "\uf0c1"}
"""What links beside headings to the headings themselves look like."""

_HIDDEN = re.compile(r"display:none|visibility:hidden")
_BLANK_LINES = re.compile(r"\n{3,}")
_HEADING_LIKE = re.compile(r"(?m)^(\s*)(#{1,6}\s)")
_BACKTICKS = re.compile(r"`{3,}")


def convert(data: bytes, label: str) -> Converted:
    """Read a page.

    Raises:
        StageError: it is no text, or too large to be taken apart.
    """
    from bs4.dammit import EncodingDetector

    declared = EncodingDetector.find_declared_encoding(data[:4096], is_html=True)
    return of_text(decode(data, label, declared), label)


def of_text(html: str, label: str) -> Converted:
    """Give HTML as Markdown text with its sections.

    Raises:
        StageError: it is too large to be taken apart.
    """
    from bs4 import BeautifulSoup

    tags = html.count("<")
    if tags > MOST_TAGS:
        raise StageError(
            f"{label} holds {tags:,} tags; at most {MOST_TAGS:,} of one page are read",
            hint="split it, or leave it out by `exclude`",
        )
    soup = BeautifulSoup(clean(html), "lxml")
    title = one_line(soup.title.get_text()) if soup.title else ""
    _strip(soup)
    _flatten(soup)
    text = _converter().convert_soup(_main_part(soup))
    found = markdown.of_text(_BLANK_LINES.sub("\n\n", clean(text)).strip("\n"))
    return Converted(found.text, found.sections, found.title or title)


def _strip(soup: BeautifulSoup) -> None:
    """Take out what a reader would not see."""
    if soup.head:
        soup.head.decompose()
    for tag in soup.find_all(_is_unread):
        if not tag.decomposed:
            tag.decompose()


def _is_unread(tag: Tag) -> bool:
    if tag.name in UNREAD or tag.has_attr("hidden"):
        return True
    if _HIDDEN.search(str(tag.get("style", "")).replace(" ", "").lower()):
        return True
    is_local = tag.name == "a" and str(tag.get("href", "")).startswith("#")
    return is_local and tag.get_text().strip() in PERMALINKS


def _flatten(soup: BeautifulSoup) -> None:
    """Make plain text of what is nested too deeply for functions that call themselves."""
    from bs4 import Tag

    depths, deep = {id(soup): 0}, []
    for element in soup.descendants:
        if isinstance(element, Tag):
            depths[id(element)] = depth = depths[id(element.parent)] + 1
            if depth == DEEPEST:
                deep.append(element)
    for element in deep:
        element.string = element.get_text(" ")


def _main_part(soup: BeautifulSoup) -> Any:
    found = soup.find_all(lambda tag: tag.name == "main" or tag.get("role") == "main")
    return found[0] if len(found) == 1 and found[0].get_text().strip() else soup


@cache
def _converter() -> Any:
    from markdownify import MarkdownConverter

    class Converter(MarkdownConverter):  # type: ignore[misc, unused-ignore]
        def escape(self, text: str, parent_tags: set[str]) -> str:
            return _HEADING_LIKE.sub(r"\1\\\2", text)

        def convert_a(self, el: Any, text: str, parent_tags: set[str]) -> str:
            address = el.get("href") or ""
            if (
                not address.startswith(("http://", "https://", "mailto:"))
                or "_noformat" in parent_tags
            ):
                return text
            label = text.strip()
            return f"[{label}]({address})" if label and label != address else f"{address}"

        def convert_img(self, el: Any, text: str, parent_tags: set[str]) -> str:
            return one_line(el.get("alt") or "")

        def convert_pre(self, el: Any, text: str, parent_tags: set[str]) -> str:
            code = text.strip("\n")
            if not code.strip():
                return ""
            fence = max(("```", *(run + "`" for run in _BACKTICKS.findall(code))), key=len)
            return f"\n\n{fence}\n{code}\n{fence}\n\n"

    return Converter(heading_style="ATX", bullets="-", table_infer_header=True)
