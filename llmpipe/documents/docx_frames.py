"""Headers and footers of Word's pages: once for each section that has its own.

They stand before and behind the text of the section. Numbers of pages are left out: a text has
other pages than the paper.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from llmpipe.documents import archive
from llmpipe.documents.docx_names import R, W

FRAMES = ("hdr", "ftr")
"""The roots of parts with headers and footers."""

COUNTED = {"PAGE", "NUMPAGES", "SECTIONPAGES"}
"""Fields that count pages."""


def of(document: str, roots: Mapping[str, Any], parts: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the headers and footers that a document refers to, by the ids of the references."""
    related = archive.relations(parts, document).items()
    found = {id_: roots.get(target) for id_, (_, target) in related}
    return {
        id_: root
        for id_, root in found.items()
        if root is not None and root.tag.removeprefix(W) in FRAMES
    }


def put_in(document: Any, frames: Mapping[str, Any]) -> None:
    """Put headers before, and footers behind, the text of the sections that they belong to."""
    body = document.find(W + "body")
    if body is None or not frames:
        return
    start = 0
    seen: set[str] = set()
    for section in list(body.iter(W + "sectPr")):
        end = _end(body, section)
        if end is None:
            continue
        headers = list(_paragraphs(section, "headerReference", frames, seen))
        footers = list(_paragraphs(section, "footerReference", frames, seen))
        for offset, paragraph in enumerate(footers):
            body.insert(end + offset, paragraph)
        for offset, paragraph in enumerate(headers):
            body.insert(start + offset, paragraph)
        start = end + len(headers) + len(footers)


def _end(body: Any, section: Any) -> int | None:
    """Give the place in the body where a section ends."""
    element = section
    while element is not None and element.getparent() is not body:
        element = element.getparent()
    if element is None:
        return None
    return int(body.index(element)) + (element is not section)


def _paragraphs(
    section: Any, kind: str, frames: Mapping[str, Any], seen: set[str]
) -> Iterator[Any]:
    """Give what frames a section and was not there before, as new paragraphs."""
    from lxml import etree

    for reference in section.findall(W + kind):
        frame = frames.get(reference.get(R + "id", ""))
        for paragraph in () if frame is None else frame.iter(W + "p"):
            text = _text(paragraph)
            if not text or text in seen:
                continue
            seen.add(text)
            new = etree.Element(W + "p")
            run = etree.SubElement(new, W + "r")
            etree.SubElement(run, W + "t").text = text
            yield new


def _text(paragraph: Any) -> str:
    """Give the words of a paragraph; nothing where they only say which page it is."""
    pieces: list[str] = []
    fields: list[str] = []  # those that are open, by their instructions
    counts = False
    for element in paragraph.iter():
        name = element.tag.removeprefix(W) if isinstance(element.tag, str) else ""
        if name == "fldChar":
            kind = element.get(W + "fldCharType")
            if kind == "begin":
                fields.append("")
            elif kind == "end" and fields:
                fields.pop()
        elif name == "instrText" and fields:
            fields[-1] += element.text or ""
        elif name in ("tab", "ptab", "br", "cr"):
            pieces.append(" ")
        elif name == "t":
            if any(field.split()[:1] and field.split()[0] in COUNTED for field in fields):
                counts = True
            else:
                pieces.append(element.text or "")
    text = " ".join("".join(pieces).split())
    words = re.findall(r"[^\W\d_]+", text)
    return "" if counts and len(words) <= 2 else text
