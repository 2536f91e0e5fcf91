"""Unpack files that are archives of XML, such as Office files and e-books, within limits."""

from __future__ import annotations

import io
import posixpath
import re
import sys
import zipfile
from collections.abc import Mapping
from typing import Any

from llmpipe.documents.plain import MARKS
from llmpipe.errors import StageError

MOST_XML = 50_000_000
"""Limit in bytes of unpacked XML; parsing needs about forty times as much memory."""

MOST_PARTS = 10_000
"""Limit of files in one archive."""

OLE = bytes.fromhex("d0cf11e0a1b11ae1")
"""First bytes of the old Office formats, and of encrypted files in the new ones."""

XML = (".opf", ".rels", ".xml")
"""Suffixes of parts that are parsed as XML."""

DECLARED = b'<?xml version="1.0" encoding="UTF-8"?>'
"""Put before checked XML; a second declaration with another encoding is an error."""

_STARTS = (
    *MARKS,
    (b"<\0\0\0", "utf-32-le"),
    (b"\0\0\0<", "utf-32-be"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)
_ENCODING = re.compile(rb"""<\?xml\s[^>]*?\bencoding\s*=\s*["']([\w.:-]+)""")
_DECLARATION = re.compile(r"\A<\?xml\s[^>]*>")
_RELATION = re.compile(r"<(?:\w+:)?Relationship\b[^>]*>")
_ATTRIBUTE = re.compile(r"""\b(Id|Target|Type)\s*=\s*["']([^"']*)["']""")


def unpacked(
    data: bytes, label: str, pages: tuple[str, ...] = (), *, doctypes: bool = False
) -> dict[str, bytes]:
    """Return the XML parts of an archive, in UTF-8, and its pages, unchanged.

    Args:
        data: the archive.
        label: what messages call it.
        pages: lowercase suffixes of other parts to return unchanged.
        doctypes: whether XML may have a document type, as in e-books.

    Raises:
        StageError: the archive is too large or uses an unusual compression, or a part cannot be
            decoded or declares entities.
    """
    parts: dict[str, bytes] = {}
    left = MOST_XML
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for part in archive.infolist():
            name = part.filename
            if not name.lower().endswith((*XML, *pages)):
                continue
            if part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise StageError(f"{label} compresses {name} in a way that such files never use")
            part.file_size = sys.maxsize  # the declared size may be wrong: read to the end
            with archive.open(part) as stream:
                found = stream.read(left + 1)
            left -= len(found)
            if left < 0 or len(parts) == MOST_PARTS:
                raise StageError(
                    f"{label} unpacks to more than {MOST_XML / 1e6:,.0f} MB of XML or "
                    f"{MOST_PARTS:,} parts, which is the limit",
                    hint="split it, or leave it out with `exclude`",
                )
            is_page = name.lower().endswith(pages)
            parts[name] = found if is_page else _plain(found, name, label, doctypes=doctypes)
    return parts


def _plain(xml: bytes, name: str, label: str, *, doctypes: bool) -> bytes:
    """Return XML in UTF-8, so that its parser sees exactly the text that was checked.

    Raises:
        StageError: it is not text in its encoding, or declares entities.
    """
    encoding = _encoding(xml)
    try:
        text = xml.decode(encoding).removeprefix("\ufeff")
    except (LookupError, UnicodeError):
        raise StageError(
            f"{label} contains {name}, which is not valid {encoding}",
            hint="save it again, or leave it out with `exclude`",
        ) from None
    if "<!ENTITY" in text or ("<!DOCTYPE" in text and not doctypes):
        raise StageError(f"{label} declares entities in {name}, which such files never do")
    return DECLARED + _DECLARATION.sub("", text).encode("utf-8", "replace")


def _encoding(xml: bytes) -> str:
    """Return the encoding of XML, from its first bytes or its declaration."""
    for start, encoding in _STARTS:
        if xml.startswith(start):
            return encoding
    declared = _ENCODING.match(xml)
    name = declared[1].decode("ascii") if declared else "utf-8"
    return "utf-8" if name.lower().startswith(("utf-16", "utf-32")) else name


def parsed(xml: bytes) -> Any:
    """Return the root of a part; nothing outside the part is loaded."""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True)
    return etree.fromstring(xml, parser)


def relations(parts: Mapping[str, bytes], name: str) -> dict[str, tuple[str, str]]:
    """Return the references of a part: by id, the kind and the name of the target part."""
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
