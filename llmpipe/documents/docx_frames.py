"""Add Word's page headers and footers to the text, once for each section that has its own.

They are put before and after the text of the section. Page numbers are left out, because the
converted text has no pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from llmpipe.documents import archive
from llmpipe.documents.docx_names import R, W

FRAMES = ("hdr", "ftr")
"""Roots of header and footer parts."""

COUNTED = {"PAGE", "NUMPAGES", "SECTIONPAGES"}
"""Fields that insert page numbers or counts."""


def of(document: str, roots: Mapping[str, Any], parts: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the headers and footers that a document refers to, by reference id."""
    related = archive.relations(parts, document).items()
    found = {id_: roots.get(target) for id_, (_, target) in related}
    return {
        id_: root
        for id_, root in found.items()
        if root is not None and root.tag.removeprefix(W) in FRAMES
    }


def put_in(document: Any, frames: Mapping[str, Any]) -> None:
    """Insert headers before, and footers after, the text of the sections they belong to."""
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
    """Return the index in the body at which a section ends."""
    element = section
    while element is not None and element.getparent() is not body:
        element = element.getparent()
    if element is None:
        return None
    return int(body.index(element)) + (element is not section)


def _paragraphs(
    section: Any, kind: str, frames: Mapping[str, Any], seen: set[str]
) -> Iterator[Any]:
    """Yield the lines of a section's header or footer that were not seen before, as paragraphs."""
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
    """Return the text of a paragraph; empty if it only gives a page number."""
    pieces: list[str] = []
    fields: list[str] = []  # instructions of the open fields
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
