"""Convert PDF: the text of each page, with sections from the outline if there is one."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from llmpipe.documents import pdf_scripts
from llmpipe.documents.model import Page
from llmpipe.documents.parts import Converted, Heading, clean, one_line, scalars, sections_of
from llmpipe.errors import StageError

UNTITLED = re.compile(
    r"(?i)untitled\b.*|.*\.(docx?|odt|tex|dvi|indd|pptx?|xlsx?)|microsoft word - .*"
)
"""Titles that programs write when the author gave none."""

_NUMBERING = re.compile(
    r"[^\S\n]*(?:(?:Chapter|Section|Appendix|Part)[^\S\n]+)?(?:[A-Z]|[\dIVX.]*)[.:)]?[^\S\n]*"
)
"""What may precede a heading's text on its line."""

_ALIKE = str.maketrans({mark: marks[0] for marks in ("'‘’", '"“”', "-‐‑–—") for mark in marks})
"""Quotes and dashes that may differ between outline and page."""

HYPHEN = "\x02"
"""What pdfium writes for a hyphen at the end of a line, whether a soft hyphen or not."""

_CONTROLS = {code: None for code in range(32) if chr(code) not in f"\t\n\r{HYPHEN}"} | {
    0xFFFE: HYPHEN
}
_ENDS = re.compile(r"\w*\Z")
_BEGINS = re.compile(r"\w*")
_WORD = re.compile(rf"[\w{HYPHEN}-]+")

LONGEST_WORD = 100
"""How many letters before a hyphen are examined."""


def convert(data: bytes, label: str) -> Converted:
    """Convert a PDF.

    Raises:
        StageError: it is damaged, encrypted, or has no text.
    """
    import pypdfium2

    try:
        pdf = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == pypdfium2.raw.FPDF_ERR_PASSWORD:
            raise StageError(
                f"{label} is encrypted and needs its password",
                hint="save it without one, for example: qpdf --password=… --decrypt OLD NEW",
            ) from None
        raise StageError(f"{label} is not a PDF that can be read: {error}") from None
    try:
        return _read(pdf, label)
    except pypdfium2.PdfiumError as error:
        raise StageError(f"{label} cannot be read to its end: {error}") from None
    finally:
        pdf.close()


def _read(pdf: Any, label: str) -> Converted:
    texts = [_page_text(page) for page in pdf]
    if not any(text.strip() for text in texts):
        raise StageError(
            f"{label} has no text: scanned pages need OCR first",
            hint="for example: ocrmypdf OLD NEW",
        )
    text, pages = _paged(_mended(texts))
    unread: list[str] = []
    facts = {
        name: _decoded(partial(pdf.get_metadata_value, name), name, unread)
        for name in ("Title", "Author", "Subject", "Keywords")
    }
    title = one_line(facts.pop("Title"))
    sections = sections_of(text, _headings(pdf, text, pages, unread))
    return Converted(
        text,
        sections,
        "" if UNTITLED.fullmatch(title) else title,
        pages,
        scalars({name.lower(): value or None for name, value in facts.items()}),
        (f"damaged and left out: {', '.join(dict.fromkeys(unread))}",) if unread else (),
    )


def _decoded(read: Callable[[], str | None], what: str, unread: list[str]) -> str:
    """Return a text outside the pages; if it is damaged, note its name and return nothing."""
    try:
        return read() or ""
    except UnicodeDecodeError:
        unread.append(what)
        return ""


def _page_text(page: Any) -> str:
    found = page.get_textpage()
    try:
        return clean(pdf_scripts.marked(found, found.get_text_bounded())).translate(_CONTROLS)
    finally:
        found.close()
        page.close()


def _mended(texts: Sequence[str]) -> Sequence[str]:
    """Join words that are hyphenated at the end of a line.

    The hyphen belongs to the word, and stays, if the joined word occurs nowhere else in the
    document (over-the-counter), or contains a digit or a capital (COVID-19, Wi-Fi).
    """
    if not any(HYPHEN in text for text in texts):
        return texts
    words = set().union(*(_WORD.findall(text.casefold()) for text in texts))
    return [_joined(text.split(HYPHEN), words) for text in texts]


def _joined(pieces: Sequence[str], words: Container[str]) -> str:
    """Join pieces of text at line-end hyphens, with or without the hyphen."""
    joined = [pieces[0]]
    for before, after in pairwise(pieces):
        left, right = _ENDS.search(before[-LONGEST_WORD:]), _BEGINS.match(after)
        assert left is not None
        assert right is not None
        is_one = bool(left[0] and right[0]) and _is_one_word(left[0], right[0], words)
        joined += ["" if is_one else "-", after]
    return "".join(joined)


def _is_one_word(left: str, right: str, words: Container[str]) -> bool:
    """Return whether two parts of a word belong together without a hyphen."""
    whole = left + right
    if whole[1:] != whole[1:].lower() or any(letter.isdigit() for letter in whole):
        return False
    return whole.casefold() in words and f"{left}-{right}".casefold() not in words


def _paged(texts: Sequence[str]) -> tuple[str, tuple[Page, ...]]:
    """Join the pages; each ends where the next one begins."""
    whole = [text + "\n" if text else "" for text in texts]
    pages, start = [], 0
    for number, text in enumerate(whole, 1):
        pages.append(Page(number, start, start + len(text)))
        start += len(text)
    return "".join(whole), tuple(pages)


def _headings(pdf: Any, text: str, pages: Sequence[Page], unread: list[str]) -> Iterator[Heading]:
    """Yield the outline's entries at their text, or else at the start of their page.

    An entry that is found in neither place gets no section: it would take another one's.
    """
    last = -1
    alike = " ".join(text.translate(_ALIKE).split("\n"))
    for entry in pdf.get_toc():
        title = one_line(_decoded(entry.get_title, "titles of the outline", unread))
        target = entry.get_dest()
        index = target.get_index() if target else None
        if not title or index is None or index >= len(pages):
            continue
        page = pages[index]
        words = title.translate(_ALIKE)
        found = _line_of(words, alike, text, max(last + 1, page.start), page.end)
        start = page.start if found is None else found
        if start > last:
            yield Heading(entry.level + 1, title, start)
            last = start


def _line_of(words: str, alike: str, text: str, start: int, end: int) -> int | None:
    """Return where the line begins that contains the words after at most a number, or None.

    Args:
        words: the words to find.
        alike: the text on one line with normalized quotes and dashes.
        text: the text with its lines.
        start: the earliest position of the line.
        end: the latest end of the words.
    """
    at = alike.find(words, start, end)
    while at >= 0:
        line = text.rfind("\n", 0, at) + 1
        if line >= start and _NUMBERING.fullmatch(text, line, at):
            return line
        at = alike.find(words, at + 1, end)
    return None
