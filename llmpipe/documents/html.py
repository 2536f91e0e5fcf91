"""Convert HTML to Markdown with the text that a reader of the page would see.

Scripts, styles, navigation and hidden elements are removed. If the page marks its main part, only
that part is kept. Links keep absolute addresses, and images are replaced by their descriptions.
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
"""Limit of tags in a page; each takes some kilobytes of memory."""

_LANGUAGE = re.compile(rb"""(?i)<html\b[^>]*\blang\s*=\s*["']?([a-z]{2})""")
_BLANK_LINES = re.compile(r"\n{3,}")
_MARKS = re.compile(f"[{html_folds.OPENS}{html_folds.CLOSES}]\n*")


def convert(data: bytes, label: str, linked: Linked | None = None) -> Converted:
    """Convert a page.

    Args:
        data: the page.
        label: what messages call it.
        linked: returns a linked style sheet.

    Raises:
        StageError: it is not text, or too large to parse.
    """
    from bs4.dammit import EncodingDetector

    declared = EncodingDetector.find_declared_encoding(data[:4096], is_html=True)
    language = _LANGUAGE.search(data[:4096])
    code = language[1].decode("ascii") if language else ""
    decoded = decode(data, label, declared, code)
    return replace(of_text(decoded.text, label, linked), remarks=decoded.remarks)


def of_text(html: str, label: str, linked: Linked | None = None) -> Converted:
    """Convert HTML text to Markdown with its sections; see `convert`.

    Raises:
        StageError: it is too large to parse.
    """
    tags = html.count("<")
    if tags > MOST_TAGS:
        raise StageError(
            f"{label} contains {tags:,} tags; the limit for a page is {MOST_TAGS:,}",
            hint="split it, or leave it out with `exclude`",
        )
    html = _MARKS.sub("", clean(html))
    title, text = _as_markdown(html, linked)
    if not text:  # a page with nothing but links keeps them
        title, text = _as_markdown(html, linked, navigation=True)
    text, marks = _without_marks(text)
    headings = list(markdown.headings(text))
    names = {heading.title for heading in headings if heading.level == 1}
    if len(names) == 1 or not title:  # several level-1 headings are chapters
        title = next((heading.title for heading in headings if heading.level == 1), title)
    if marks:
        headings = html_folds.unmarked(text, headings, marks)
    return Converted(text, sections_of(text, headings), title)


def fragment(html: str) -> str:
    """Return a part of a page as Markdown; empty if it is too large or shows nothing."""
    if html.count("<") > MOST_TAGS:
        return ""
    soup = _soup(html)
    _make_plain(soup, Seen(soup, navigation=True))
    return _written(soup)


def _as_markdown(
    html: str, linked: Linked | None = None, *, navigation: bool = False
) -> tuple[str, str]:
    """Return the title that the browser shows, and the page as Markdown."""
    soup = _soup(html)
    title = one_line(soup.title.get_text()) if soup.title else ""
    _make_plain(soup, Seen(soup, navigation=navigation, linked=linked))
    return title, _written(_main_part(soup))


def _make_plain(soup: Any, seen: Seen) -> None:
    """Convert the collected elements to what Markdown supports."""
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
    """Remove the marks from a text; return it and the marks with their positions."""
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
