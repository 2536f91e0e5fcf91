"""Convert Word documents to HTML, and that to Markdown.

List numbers, equations and page headers and footers become text; hidden text is left out. Images,
comments, charts and diagrams are left out; all but images are reported. Only the XML of the archive
is read, after a check of its unpacked size. A part that declares entities is refused: Word writes
none.
"""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import replace
from html import unescape

from llmpipe.documents import docx_xml, html
from llmpipe.documents.archive import OLE, unpacked
from llmpipe.documents.html_writer import LABEL
from llmpipe.documents.model import Scalar
from llmpipe.documents.parts import Converted, one_line
from llmpipe.errors import StageError

STYLES = "p[style-name='Title'] => h1:fresh"

_LABEL = re.compile(f"{docx_xml.LABEL}([^{docx_xml.LABEL}]*){docx_xml.LABEL}")
_LABELED_ITEM = re.compile(f"<li>{_LABEL.pattern}")
_UNREAD = re.compile(
    r"An unrecognised element was ignored: (?:w|m):(?!background|continuationSeparator|customXml|"
    r"fldData|perm|pgNum|ptab|separator|tblPrEx)(\w+)"
    r"|A w:sym element with an unsupported (character)"
)
"""Messages of the library about elements that may contain text."""

_PROPERTY = r"<dc:{0}(?:\s[^>]*)?>([^<]*)</dc:{0}>"


def convert(data: bytes, label: str) -> Converted:
    """Convert a Word document; title and author come from its properties if set.

    Raises:
        StageError: it is not a Word document, is encrypted, or is too large when unpacked.
    """
    if data.startswith(OLE):
        raise StageError(
            f"{label} is encrypted or in Word's old format",
            hint="save it as .docx without a password",
        )
    try:
        parts = unpacked(data, label)
        page, remarks = _as_html(parts)
        found = html.of_text(page, label)
    except StageError:
        raise
    except Exception as error:  # the libraries raise anything for a broken archive
        raise StageError(f"{label} is not a Word document that can be read: {error}") from None
    properties = parts.get("docProps/core.xml", b"").decode("utf-8", "replace")
    title, author = _property(properties, "title"), _property(properties, "creator")
    metadata: dict[str, Scalar] = {"author": author} if author else {}
    return replace(
        found, title=title or found.title, metadata=metadata, remarks=(*remarks, *found.remarks)
    )


def _as_html(parts: dict[str, bytes]) -> tuple[str, list[str]]:
    """Return a document as HTML, and remarks about text that it lacks."""
    import mammoth

    shown, left_out = docx_xml.explicit(parts)
    only_xml = io.BytesIO()
    with zipfile.ZipFile(only_xml, "w") as archive:
        for name, xml in shown.items():
            archive.writestr(name, xml)
    only_xml.seek(0)
    found = mammoth.convert_to_html(
        only_xml, style_map=STYLES, convert_image=lambda image: [], external_file_access=False
    )
    for message in found.messages:
        unread = _UNREAD.match(message.message)
        if unread:
            left_out[unread[1] or unread[2]] += 1
    page = _LABELED_ITEM.sub(_labeled, str(found.value))
    page = _LABEL.sub(lambda label: f"{label[1]} " if label[1] else "", page)
    named = ", ".join(f"{name} ({count})" for name, count in sorted(left_out.items()))
    return page, [f"not read: {named}"] if named else []


def _labeled(match: re.Match[str]) -> str:
    return f'<li {LABEL}="{match[1].replace(chr(34), "&quot;")}">'


def _property(properties: str, name: str) -> str:
    match = re.search(_PROPERTY.format(name), properties)
    return one_line(unescape(match[1])) if match else ""
