"""Word documents: their styles and tables as HTML, and that as Markdown.

Numbers of lists, equations, and the headers and footers of pages are text, what is hidden is not.
Images are left out, and so are comments, charts and diagrams, which is said. Of the archive only
the XML is looked at, after its size unpacked was, and a part that declares entities is refused:
Word writes none.
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
_LABELLED_ITEM = re.compile(f"<li>{_LABEL.pattern}")
_UNREAD = re.compile(
    r"An unrecognised element was ignored: (?:w|m):(?!background|continuationSeparator|customXml|"
    r"fldData|perm|pgNum|ptab|separator|tblPrEx)(\w+)"
    r"|A w:sym element with an unsupported (character)"
)
"""What the library says of elements that may hold words."""

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
        parts = unpacked(data, label)
        page, remarks = _as_html(parts)
        found = html.of_text(page, label)
    except StageError:
        raise
    except Exception as error:  # whatever the libraries make of a broken archive
        raise StageError(f"{label} is not a Word document that can be read: {error}") from None
    properties = parts.get("docProps/core.xml", b"").decode("utf-8", "replace")
    title, author = _property(properties, "title"), _property(properties, "creator")
    metadata: dict[str, Scalar] = {"author": author} if author else {}
    return replace(
        found, title=title or found.title, metadata=metadata, remarks=(*remarks, *found.remarks)
    )


def _as_html(parts: dict[str, bytes]) -> tuple[str, list[str]]:
    """Give a document as HTML, and what to say of it: words that are not in there."""
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
    page = _LABELLED_ITEM.sub(_labelled, str(found.value))
    page = _LABEL.sub(lambda label: f"{label[1]} " if label[1] else "", page)
    named = ", ".join(f"{name} ({count})" for name, count in sorted(left_out.items()))
    return page, [f"not read: {named}"] if named else []


def _labelled(match: re.Match[str]) -> str:
    return f'<li {LABEL}="{match[1].replace(chr(34), "&quot;")}">'


def _property(properties: str, name: str) -> str:
    match = re.search(_PROPERTY.format(name), properties)
    return one_line(unescape(match[1])) if match else ""
