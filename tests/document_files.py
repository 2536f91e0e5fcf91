"""The smallest PDF and Word files that hold what a test asks for, and what all documents keep."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from html import escape

from llmpipe.errors import StageError

NAMESPACE = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def check_parts(text, sections, pages=()):
    """Sections and pages follow each other without gaps and cover the text; it is clean."""
    for parts in (sections, pages) if pages else (sections,):
        assert "".join(text[part.start : part.end] for part in parts) == text
        ends = [0, *(part.end for part in parts)]
        assert [part.start for part in parts] == ends[:-1]
    assert all(section.start < section.end for section in sections)
    assert all(all(section.path) for section in sections)
    assert not {"\r", "\0"} & set(text)


def read_or_told(convert, data, name):
    """Return what a converter makes of bytes, or its message where it refuses them."""
    try:
        return convert(data, name)
    except StageError as error:
        return error.message


def pdf_bytes(
    pages: Sequence[Sequence[str]],
    outline: Sequence[tuple[str, int]] = (),
    title: str = "",
    *,
    encrypted: bool = False,
) -> bytes:
    """Write a PDF of lines of Latin text; ``outline`` holds titles with the index of their page.

    A page that is one text instead of lines is taken as its stream.
    """
    objects: list[bytes] = [b"", b"", b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"]

    def add(body: str) -> int:
        objects.append(body.encode("latin-1"))
        return len(objects)

    kids = []
    for lines in pages:
        shown = "".join(f"({_quoted(line)}) Tj T*\n" for line in lines)
        stream = lines if isinstance(lines, str) else f"BT /F1 12 Tf 14 TL 50 780 Td\n{shown}ET"
        content = add(f"<</Length {len(stream.encode('latin-1'))}>>stream\n{stream}\nendstream")
        kids.append(
            add(
                f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents {content} 0 R"
                "/Resources<</Font<</F1 3 0 R>>>>>>"
            )
        )
    root = ""
    if outline:
        first = len(objects) + 2
        last = first + len(outline) - 1
        parent = add(f"<</Type/Outlines/First {first} 0 R/Last {last} 0 R/Count {len(outline)}>>")
        for i, (words, page) in enumerate(outline):
            before = f"/Prev {first + i - 1} 0 R" if i else ""
            after = f"/Next {first + i + 1} 0 R" if first + i < last else ""
            target = f"/Dest[{kids[page]} 0 R/Fit]"
            add(f"<</Title({_quoted(words)})/Parent {parent} 0 R{before}{after}{target}>>")
        root = f"/Outlines {parent} 0 R"
    info = add(f"<</Title({_quoted(title)})>>")
    trailer = f"/Info {info} 0 R"
    if encrypted:
        key = add(f"<</Filter/Standard/V 1/R 2/O<{'41' * 32}>/U<{'42' * 32}>/P -4>>")
        trailer += f"/Encrypt {key} 0 R/ID[<{'43' * 16}><{'43' * 16}>]"
    objects[0] = f"<</Type/Catalog/Pages 2 0 R{root}>>".encode()
    listed = " ".join(f"{kid} 0 R" for kid in kids)
    objects[1] = f"<</Type/Pages/Kids[{listed}]/Count {len(kids)}>>".encode()
    return _assembled(objects, trailer)


def _quoted(text: str) -> str:
    return text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")


def _assembled(objects: Sequence[bytes], trailer: str) -> bytes:
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    return out + f"trailer<</Size {size}/Root 1 0 R{trailer}>>\nstartxref\n{start}\n%%EOF".encode()


def _paragraph(level: int, text: str) -> str:
    style = f'<w:pPr><w:pStyle w:val="Heading{level}"/></w:pPr>' if level else ""
    return f'<w:p>{style}<w:r><w:t xml:space="preserve">{escape(text)}</w:t></w:r></w:p>'


def docx_bytes(
    paragraphs: Sequence[tuple[int, str]], title: str = "", extra: str = "", **parts: bytes
) -> bytes:
    """Write a Word file: ``paragraphs`` are texts with the level of a heading, or 0.

    ``extra`` is XML put after them; ``parts`` are further files of the archive.
    """
    body = "".join(_paragraph(level, text) for level, text in paragraphs)
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="Heading{n}"><w:name w:val="heading {n}"/></w:style>'
        for n in range(1, 7)
    )
    relation = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    files = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
        "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f'<Relationship Id="r1" Type="{relation}/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/document.xml": f"<w:document {NAMESPACE}><w:body>{body}{extra}</w:body></w:document>",
        "word/styles.xml": f"<w:styles {NAMESPACE}>{styles}</w:styles>",
        "docProps/core.xml": f"<c:coreProperties xmlns:c='c' xmlns:dc='d'><dc:title>{escape(title)}</dc:title>"
        "<dc:creator>A. Writer</dc:creator></c:coreProperties>",
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        for name, data in parts.items():
            archive.writestr(name, data)
    return out.getvalue()
