"""Word documents: styles become structure; broken, encrypted and hostile files are refused."""

from __future__ import annotations

import pytest
from document_files import check_parts, docx_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpipe.documents import docx
from llmpipe.documents.docx import convert
from llmpipe.errors import StageError

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


@pytest.mark.slow
@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 6), WORDS), max_size=8))
def test_sections_cover_the_text(paragraphs):
    """Whatever the paragraphs say."""
    found = convert(docx_bytes(paragraphs), "a.docx")
    check_parts(found.text, found.sections)


def test_headings_tables_and_title():
    """Heading styles give sections, tables stay tables, and properties give the title."""
    table = "".join(
        f"<w:tr><w:tc><w:p><w:r><w:t>{a}</w:t></w:r></w:p></w:tc></w:tr>" for a in ("head", "cell")
    )
    paragraphs = [(1, "Top"), (0, "Some text."), (2, "Inner"), (0, "# no heading")]
    found = convert(docx_bytes(paragraphs, "The title", f"<w:tbl>{table}</w:tbl>"), "a.docx")
    assert found.title == "The title"
    assert found.metadata == {"author": "A. Writer"}
    assert [section.path for section in found.sections] == [("Top",), ("Top", "Inner")]
    assert found.text.startswith("# Top\n\nSome text.\n\n## Inner\n\n")
    assert "| head |\n| --- |\n| cell |" in found.text
    assert convert(docx_bytes(paragraphs), "a.docx").title == "Top"


def test_what_is_no_word_document():
    """Old or encrypted files, rubbish and damaged archives have different messages."""
    for data, told in (
        (docx.OLE + b"\0" * 600, "is encrypted or in Word's old format"),
        (b"PK\x03\x04 rubbish", "is not a Word document that can be read"),
        (docx_bytes([(0, "x")])[:-40], "is not a Word document that can be read"),
        (docx_bytes([(0, "x")], extra="<w:p>"), "is not a Word document that can be read"),
    ):
        with pytest.raises(StageError) as caught:
            convert(data, "a.docx")
        assert told in caught.value.message


@pytest.mark.slow
def test_a_bomb_is_refused_by_its_size_unpacked():
    """Sixty megabytes of XML in sixty kilobytes are not unpacked."""
    data = docx_bytes([(0, "x")], **{"word/footnotes.xml": b" " * 60_000_000})
    assert len(data) < 100_000
    with pytest.raises(
        StageError, match=r"a\.docx unpacks to more than 50 MB of XML or 10,000 parts"
    ):
        convert(data, "a.docx")


def test_entities_are_refused():
    """Word files do not need XML entities."""
    hostile = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>'
    with pytest.raises(StageError, match=r"declares entities in word/endnotes\.xml"):
        convert(docx_bytes([(0, "x")], **{"word/endnotes.xml": hostile}), "a.docx")


def test_nesting_without_end():
    """Tables nested five hundred deep are refused, not followed."""
    deep = "<w:tbl><w:tr><w:tc>" * 1500 + "</w:tc></w:tr></w:tbl>" * 1500
    with pytest.raises(StageError, match="is not a Word document that can be read"):
        convert(docx_bytes([(0, "x")], extra=deep), "a.docx")
