"""Archives with false sizes, and XML with entities, in any encoding."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import pytest
from document_files import docx_bytes

from llmpipe.documents import archive, docx, epub, pptx, xlsx
from llmpipe.errors import StageError

DOCTYPE = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>'

READERS = {
    "docx": (docx.convert, "word/document.xml"),
    "pptx": (pptx.convert, "ppt/presentation.xml"),
    "xlsx": (xlsx.convert, "xl/worksheets/sheet1.xml"),
    "epub": (epub.convert, "OEBPS/b.opf"),
}


def packed(parts: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return an archive of parts."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        for name, data in parts.items():
            made.writestr(name, data)
    return out.getvalue()


def with_size(data: bytes, claimed: bytes, true: bytes) -> bytes:
    """Return an archive of one part that declares the size and checksum of another text."""
    return data.replace(
        struct.pack("<I", zlib.crc32(true)), struct.pack("<I", zlib.crc32(claimed))
    ).replace(struct.pack("<I", len(true)), struct.pack("<I", len(claimed)))


@pytest.mark.parametrize("xml", [b"<a/>" + b" " * 5000, b"<a>" + b"x" * 5000 + b"</a>"])
@pytest.mark.parametrize("forged", [True, False])
def test_no_more_is_unpacked_than_may_be(monkeypatch, xml, forged):
    """Whatever header and checksum say: the size is measured by reading."""
    data = with_size(packed({"a.xml": xml}), xml[:10], xml) if forged else packed({"a.xml": xml})
    with zipfile.ZipFile(io.BytesIO(data)) as made:
        assert (made.infolist()[0].file_size == 10) is forged
    monkeypatch.setattr(archive, "MOST_XML", 1000)
    with pytest.raises(StageError, match=r"a\.docx unpacks to more than"):
        archive.unpacked(data, "a.docx")


def test_parts_that_are_there_several_times(monkeypatch):
    """Each one counts, even if a thousand names lead to the same bytes."""
    monkeypatch.setattr(archive, "MOST_XML", 10_000)
    data = packed({f"{at}.xml": b"<a>" + b"x" * 990 + b"</a>" for at in range(11)})
    with pytest.raises(StageError, match="unpacks to more than"):
        archive.unpacked(data, "a.docx")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_that_office_never_uses(method):
    """They are unpacked in one piece, however large."""
    with pytest.raises(StageError, match=r"compresses a\.xml in a way that such files never use"):
        archive.unpacked(packed({"a.xml": b"<a/>"}, method), "a.docx")


def declared(text: str, encoding: str, name: str) -> bytes:
    """Return XML in an encoding that it declares."""
    return f'<?xml version="1.0" encoding="{name}"?>{text}'.encode(encoding)


ENCODINGS = {
    "UTF-8": DOCTYPE.encode(),
    "UTF-8 with a mark": DOCTYPE.encode("utf-8-sig"),
    "UTF-16": declared(DOCTYPE, "utf-16", "UTF-16"),
    "UTF-16 without a mark": declared(DOCTYPE, "utf-16-le", "UTF-16"),
    "UTF-16, big end first": declared(DOCTYPE, "utf-16-be", "UTF-16"),
    "UTF-16 undeclared": DOCTYPE.encode("utf-16"),
    "UTF-32": declared(DOCTYPE, "utf-32", "UTF-32"),
    "UTF-32 without a mark": declared(DOCTYPE, "utf-32-be", "UTF-32"),
    "UTF-7": b"<?xml version='1.0'\n encoding = 'UTF-7' ?>"
    + DOCTYPE.replace("<", "+ADw-").encode(),
    "UTF-7 behind another": b"<?xml version='1.0'?><?xml version='1.0' encoding='UTF-7'?>"
    + DOCTYPE.replace("<", "+ADw-").encode(),
    "EBCDIC": declared(DOCTYPE, "cp037", "cp037"),
    "EBCDIC of another country": declared(DOCTYPE, "cp500", "IBM500"),
    "Shift JIS": declared(DOCTYPE, "shift_jis", "Shift_JIS"),
    "unknown": declared(DOCTYPE, "utf-8", "x-nobody"),
    "not of text": declared(DOCTYPE, "utf-8", "base64"),
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_entities_are_refused_in_every_encoding(kind, encoding):
    """They are searched in exactly the text that the parser will see."""
    convert, name = READERS[kind]
    parts = {
        "META-INF/container.xml": b'<container><rootfile full-path="OEBPS/b.opf"/></container>',
        name: ENCODINGS[encoding],
    }
    with pytest.raises(StageError) as caught:
        convert(packed(parts), "a.x")
    assert caught.value.message.startswith(
        (f"a.x declares entities in {name}", f"a.x contains {name}, which is not valid ")
    ) or (encoding == "UTF-7 behind another" and "that can be read" in caught.value.message)


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("utf-8", "UTF-8"), ("utf-8-sig", "utf-8"), ("utf-8", "utf-16"), ("utf-16", "UTF-16"),
        ("utf-16-be", "UTF-16"), ("cp1252", "windows-1252"), ("latin-1", "ISO-8859-1"),
    ],
)  # fmt: skip
def test_text_in_other_encodings_is_read(encoding, name):
    """UTF-16 as in the standard, and as some programs write it."""
    with zipfile.ZipFile(io.BytesIO(docx_bytes([(0, "Größe in Zoll")]))) as made:
        parts = {part: made.read(part) for part in made.namelist()}
    for part, xml in parts.items():
        parts[part] = declared(xml.decode(), encoding, name)
    assert docx.convert(packed(parts), "a.docx").text == "Größe in Zoll"
    broken = {**parts, "word/document.xml": b"\xff\xfe\xff" + parts["word/document.xml"]}
    with pytest.raises(StageError):
        docx.convert(packed(broken), "a.docx")


def test_a_sheet_by_another_name_is_not_read_unchecked():
    """The library that reads workbooks only gets checked parts."""
    import openpyxl

    book = openpyxl.Workbook()
    book.active["A1"] = "x"
    out = io.BytesIO()
    book.save(out)
    with zipfile.ZipFile(out) as made:
        parts = {part: made.read(part) for part in made.namelist()}
    assert "| x |" in xlsx.convert(packed(parts), "a.xlsx").text
    moved = parts.pop("xl/worksheets/sheet1.xml").replace(
        b"<worksheet", DOCTYPE[:50].encode() + b"<worksheet"
    )
    parts["xl/worksheets/sheet1.bin"] = moved
    for name in ("xl/_rels/workbook.xml.rels", "[Content_Types].xml"):
        parts[name] = parts[name].replace(b"sheet1.xml", b"sheet1.bin")
    with pytest.raises(StageError, match=r"a\.xlsx is not a workbook"):
        xlsx.convert(packed(parts), "a.xlsx")
