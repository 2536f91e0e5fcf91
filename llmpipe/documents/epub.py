"""Convert e-books (EPUB): their pages in reading order, as Markdown."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote

from llmpipe.documents import archive, html, markdown
from llmpipe.documents.model import Scalar
from llmpipe.documents.parts import Converted, one_line
from llmpipe.errors import StageError

PAGES = (".xhtml", ".html", ".htm", ".css")
"""Suffixes of parts that are pages or style sheets; entities in them are treated as text."""

_DC = "{http://purl.org/dc/elements/1.1/}"


def convert(data: bytes, label: str) -> Converted:
    """Convert a book.

    Raises:
        StageError: it is not a book, is protected, or is too large when unpacked.
    """
    try:
        parts = archive.unpacked(data, label, PAGES, doctypes=True)
        name = _package(parts)
        package = archive.parsed(parts[name])
        pages = list(_pages(package, name))
        _check_protection(parts, pages, label)
        texts = [
            html.convert(parts[page], f"{label}/{page}", partial(_sheet, parts, page)).text
            for page in pages
            if page in parts
        ]
    except StageError:
        raise
    except Exception as error:  # the libraries raise anything for a broken archive
        raise StageError(f"{label} is not a book that can be read: {error}") from None
    missing = [page for page in pages if page not in parts]
    found = markdown.sectioned("\n\n".join(filter(None, texts)))
    values = {key: one_line(package.findtext(f".//{_DC}{key}") or "") for key in _KEPT}
    metadata: dict[str, Scalar] = {_KEPT[key]: value for key, value in values.items() if value}
    title = str(metadata.pop("title", "")) or found.title
    remarks = (f"missing pages: {', '.join(missing)}",) if missing else ()
    return Converted(found.text, found.sections, title, metadata=metadata, remarks=remarks)


_KEPT = {"title": "title", "creator": "author", "language": "language", "publisher": "publisher"}


def _package(parts: Mapping[str, bytes]) -> str:
    """Return the name of the part that lists all others."""
    container = archive.parsed(parts["META-INF/container.xml"])
    return str(next(root.get("full-path") for root in _named(container, "rootfile")))


def _named(root: Any, name: str) -> Iterator[Any]:
    return (e for e in root.iter() if isinstance(e.tag, str) and e.tag.rpartition("}")[2] == name)


def _pages(package: Any, name: str) -> Iterator[str]:
    """Yield the pages in reading order, without the table of contents."""
    folder = posixpath.dirname(name)
    items = {item.get("id"): item for item in _named(package, "item")}
    for reference in _named(package, "itemref"):
        item = items.get(reference.get("idref"))
        if item is None or "nav" in (item.get("properties") or "").split():
            continue
        yield _joined(folder, item.get("href") or "")


def _joined(folder: str, address: str) -> str:
    return posixpath.normpath(posixpath.join(folder, unquote(address)))


def _sheet(parts: Mapping[str, bytes], page: str, address: str) -> str:
    """Return a style sheet that a page links to."""
    sheet = parts.get(_joined(posixpath.dirname(page), address), b"")
    return sheet.decode("utf-8", "replace")


def _check_protection(parts: Mapping[str, bytes], pages: list[str], label: str) -> None:
    """Check that the pages are not encrypted; fonts may be.

    Raises:
        StageError: a page is encrypted.
    """
    encryption = parts.get("META-INF/encryption.xml", b"").decode("utf-8", "replace")
    if any(page in unquote(encryption) for page in pages):
        raise StageError(f"{label} is protected: its pages are encrypted")
