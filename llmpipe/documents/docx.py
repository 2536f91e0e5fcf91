"""Word documents: their styles and tables as HTML, and that as Markdown.

Images are left out. Of the archive only the XML is looked at, after its size unpacked was, and a
part that declares entities is refused: Word writes none.
"""

from __future__ import annotations

import io
import re
import zipfile
from html import unescape

from llmpipe.documents import html
from llmpipe.documents.model import Scalar
from llmpipe.documents.parts import Converted, one_line
from llmpipe.errors import StageError

MOST_XML = 50_000_000
"""Bytes of unpacked XML; taken apart they need some forty times as much memory."""

MOST_PARTS = 10_000
"""Files in one archive."""

OLE = bytes.fromhex("d0cf11e0a1b11ae1")
"""How the old format begins, and the new one when it is encrypted."""

STYLES = "p[style-name='Title'] => h1:fresh"

_PROPERTY = r"<dc:{0}(?:\s[^>]*)?>([^<]*)</dc:{0}>"


def convert(data: bytes, label: str) -> Converted:
    """Read a Word document; title and author come from its properties where they are set.

    Raises:
        StageError: it is none, is encrypted, or is too large unpacked.
    """
    if data.startswith(OLE):
        raise StageError(
            f"{label} is encrypted or in Word's old format",
            hint="save it as .docx without a password",
        )
    try:
        parts = _xml_parts(data, label)
        found = html.of_text(_as_html(parts), label)
    except StageError:
        raise
    except Exception as error:  # whatever the libraries make of a broken archive
        raise StageError(f"{label} is not a Word document that can be read: {error}") from None
    properties = parts.get("docProps/core.xml", b"").decode("utf-8", "replace")
    title, author = _property(properties, "title"), _property(properties, "creator")
    metadata: dict[str, Scalar] = {"author": author} if author else {}
    return Converted(found.text, found.sections, title or found.title, metadata=metadata)


def _xml_parts(data: bytes, label: str) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        wanted = [part for part in archive.infolist() if part.filename.endswith((".xml", ".rels"))]
        size = sum(part.file_size for part in wanted)
        if size > MOST_XML or len(wanted) > MOST_PARTS:
            raise StageError(
                f"{label} unpacks to {size / 1e6:,.0f} MB of XML in {len(wanted):,} parts; "
                f"at most {MOST_XML / 1e6:.0f} MB in {MOST_PARTS:,} are read",
                hint="split it, or leave it out by `exclude`",
            )
        parts = {part.filename: archive.read(part) for part in wanted}
    for name, xml in parts.items():
        if b"<!DOCTYPE" in xml or b"<!ENTITY" in xml:
            raise StageError(f"{label} declares entities in {name}, which Word never does")
    return parts


def _as_html(parts: dict[str, bytes]) -> str:
    import mammoth

    only_xml = io.BytesIO()
    with zipfile.ZipFile(only_xml, "w") as archive:
        for name, xml in parts.items():
            archive.writestr(name, xml)
    only_xml.seek(0)
    found = mammoth.convert_to_html(
        only_xml, style_map=STYLES, convert_image=lambda image: [], external_file_access=False
    )
    return str(found.value)


def _property(properties: str, name: str) -> str:
    match = re.search(_PROPERTY.format(name), properties)
    return one_line(unescape(match[1])) if match else ""
