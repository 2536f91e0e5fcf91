"""Files that are archives of XML, as Office and e-books write them, unpacked within limits."""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from collections.abc import Mapping
from typing import Any

from llmpipe.errors import StageError

MOST_XML = 50_000_000
"""Bytes of unpacked XML; taken apart they need some forty times as much memory."""

MOST_PARTS = 10_000
"""Files in one archive."""

OLE = bytes.fromhex("d0cf11e0a1b11ae1")
"""How the old formats of Office begin, and the new ones when they are encrypted."""

XML = (".xml", ".rels")

_RELATION = re.compile(r"<(?:\w+:)?Relationship\b[^>]*>")
_ATTRIBUTE = re.compile(r"""\b(Id|Target|Type)\s*=\s*["']([^"']*)["']""")


def unpacked(
    data: bytes, label: str, endings: tuple[str, ...] = XML, *, entities: bool = False
) -> dict[str, bytes]:
    """Return the parts of an archive whose names have one of some endings.

    Args:
        data: the archive.
        label: what it is called in messages.
        endings: how the names of the parts end, in small letters.
        entities: whether parts may declare entities, as pages do; Office writes none.

    Raises:
        StageError: there are too many or too large ones, or one declares entities.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        wanted = [part for part in archive.infolist() if part.filename.lower().endswith(endings)]
        size = sum(part.file_size for part in wanted)
        if size > MOST_XML or len(wanted) > MOST_PARTS:
            raise StageError(
                f"{label} unpacks to {size / 1e6:,.0f} MB of XML in {len(wanted):,} parts; "
                f"at most {MOST_XML / 1e6:.0f} MB in {MOST_PARTS:,} are read",
                hint="split it, or leave it out by `exclude`",
            )
        parts = {part.filename: archive.read(part) for part in wanted}
    for name, xml in parts.items():
        if not entities and (b"<!DOCTYPE" in xml or b"<!ENTITY" in xml):
            raise StageError(f"{label} declares entities in {name}, which Office never does")
    return parts


def parsed(xml: bytes) -> Any:
    """Return the root of a part; nothing outside of it is looked at."""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True)
    return etree.fromstring(xml, parser)


def relations(parts: Mapping[str, bytes], name: str) -> dict[str, tuple[str, str]]:
    """Return what a part refers to: by id the kind of the reference and the name of the part."""
    folder, file = posixpath.split(name)
    xml = parts.get(f"{folder}/_rels/{file}.rels", b"").decode("utf-8", "replace")
    found = {}
    for element in _RELATION.findall(xml):
        attributes = dict(_ATTRIBUTE.findall(element))
        target = attributes.get("Target", "")
        path = target.lstrip("/") if target.startswith("/") else posixpath.join(folder, target)
        kind = attributes.get("Type", "").rpartition("/")[2]
        found[attributes.get("Id", "")] = (kind, posixpath.normpath(path))
    return found
