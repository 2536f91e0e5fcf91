"""HTML: what a reader of the page would see, as Markdown.

Scripts, styles, navigation and hidden elements go; where the page marks its main part, only that is
taken. Links keep their address where it is a whole one, images are what their description says.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from llmpipe.documents import html_code, html_folds, html_notation, html_tables, markdown
from llmpipe.documents.html_seen import Seen
from llmpipe.documents.html_styles import Linked
from llmpipe.documents.html_writer import converter
from llmpipe.documents.parts import Converted, clean, one_line, sections_of
from llmpipe.documents.plain import decode
from llmpipe.errors import StageError

MOST_TAGS = 500_000
"""Tags of one page; each takes some kilobytes of memory."""

_LANGUAGE = re.compile(rb"""(?i)<html\b[^>]*\blang\s*=\s*["']?([a-z]{2})""")
_BLANK_LINES = re.compile(r"\n{3,}")
_MARKS = re.compile(f"[{html_folds.OPENS}{html_folds.CLOSES}]\n*")


def convert(data: bytes, label: str, linked: Linked | None = None) -> Converted:
    """Read a page.

    Args:
        data: the page.
        label: what it is called in messages.
        linked: gives the style sheets that it links to.

    Raises:
        StageError: it is no text, or too large to be taken apart.
    """
    from bs4.dammit import EncodingDetector

    declared = EncodingDetector.find_declared_encoding(data[:4096], is_html=True)
    language = _LANGUAGE.search(data[:4096])
    code = language[1].decode("ascii") if language else ""
    decoded = decode(data, label, declared, code)
    return replace(of_text(decoded.text, label, linked), remarks=decoded.remarks)


def of_text(html: str, label: str, linked: Linked | None = None) -> Converted:
    """Give HTML as Markdown text with its sections; see `convert`.

    Raises:
        StageError: it is too large to be taken apart.
    """
    tags = html.count("<")
    if tags > MOST_TAGS:
        raise StageError(
            f"{label} holds {tags:,} tags; at most {MOST_TAGS:,} of one page are read",
            hint="split it, or leave it out by `exclude`",
        )
    html = _MARKS.sub("", clean(html))
    title, text = _as_markdown(html, linked)
    if not text:  # a page that is nothing but links has them
        title, text = _as_markdown(html, linked, navigation=True)
    text, marks = _without_marks(text)
    headings = list(markdown.headings(text))
    names = {heading.title for heading in headings if heading.level == 1}
    if len(names) == 1 or not title:  # several are its chapters
        title = next((heading.title for heading in headings if heading.level == 1), title)
    if marks:
        headings = html_folds.unmarked(text, headings, marks)
    return Converted(text, sections_of(text, headings), title)


def fragment(html: str) -> str:
    """Return a part of a page as Markdown; empty where it is too large or shows nothing."""
    if html.count("<") > MOST_TAGS:
        return ""
    soup = _soup(html)
    _make_plain(soup, Seen(soup, navigation=True))
    return _written(soup)


def _as_markdown(
    html: str, linked: Linked | None = None, *, navigation: bool = False
) -> tuple[str, str]:
    """Give the title that the browser shows, and the page as Markdown."""
    soup = _soup(html)
    title = one_line(soup.title.get_text()) if soup.title else ""
    _make_plain(soup, Seen(soup, navigation=navigation, linked=linked))
    return title, _written(_main_part(soup))


def _make_plain(soup: Any, seen: Seen) -> None:
    """Make of the elements that were noted what Markdown can hold."""
    found = seen.found
    for math in found["math"]:
        html_notation.write_formula(math)
    for script in (*found["sup"], *found["sub"]):
        html_notation.write(script)
    for table in found["table"]:
        html_tables.prepare(table)
    for pre in found["pre"]:
        html_code.flatten(pre)
    html_folds.write(soup, found["details"], found["button"])


def _written(part: Any) -> str:
    text = converter().convert_soup(part)
    return _BLANK_LINES.sub("\n\n", clean(text)).strip("\n")


def _soup(html: str) -> Any:
    import warnings

    from bs4 import BeautifulSoup, XMLParsedAsHTMLWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)  # XHTML says that it is XML
        return BeautifulSoup(html, "lxml")


def _main_part(soup: Any) -> Any:
    found = soup.find_all(lambda tag: "main" in (tag.get("data-was"), tag.get("role")))
    return found[0] if len(found) == 1 and found[0].get_text().strip() else soup


def _without_marks(text: str) -> tuple[str, list[tuple[int, str]]]:
    """Take the marks out of a text; give them with the places where they stood."""
    if not _MARKS.search(text):
        return text, []
    pieces: list[str] = []
    marks: list[tuple[int, str]] = []
    length = at = 0
    for match in _MARKS.finditer(text):
        pieces.append(text[at : match.start()])
        length += match.start() - at
        marks.append((length, match[0][0]))
        at = match.end()
    whole = "".join([*pieces, text[at:]]).rstrip("\n")
    return whole, [(min(place, len(whole)), mark) for place, mark in marks]
