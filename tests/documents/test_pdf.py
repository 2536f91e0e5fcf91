"""PDF: pages, sections from the outline, and unreadable files."""

from __future__ import annotations

import pytest
from document_files import check_parts, pdf_bytes, read_or_told
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpipe.documents.pdf import convert
from llmpipe.errors import StageError

LINES = st.lists(st.text("abc XYZ.12()\\", min_size=1, max_size=20), max_size=5)


@settings(max_examples=40)
@given(st.data())
def test_pages_and_sections_cover_the_text(data):
    """Whatever pages and outline there are."""
    pages = data.draw(st.lists(LINES, min_size=1, max_size=4))
    entry = st.tuples(st.text("abcX 1.", max_size=6), st.integers(0, len(pages) - 1))
    outline = data.draw(st.lists(entry, max_size=5))
    found = read_or_told(convert, pdf_bytes(pages, outline), "a.pdf")
    if any(line.strip() for lines in pages for line in lines):
        check_parts(found.text, found.sections, found.pages)
        assert len(found.pages) == len(pages)
    else:
        assert "has no text" in found


def test_pages_outline_and_title():
    """A section begins at the line of its heading, numbered or not, on the right page."""
    pages = [
        ["Cover"],
        ["1. Setup", "Install it.", "1.1 Linux", "Use apt."],
        [],
        ["Usage", "Run it."],
    ]
    outline = [("Setup", 1), ("Linux", 1), ("Usage", 3)]
    found = convert(pdf_bytes(pages, outline, "The manual"), "a.pdf")
    assert found.title == "The manual"
    assert found.text == "Cover\n1. Setup\nInstall it.\n1.1 Linux\nUse apt.\nUsage\nRun it.\n"
    assert [(s.path, found.text[s.start : s.end]) for s in found.sections] == [
        ((), "Cover\n"),
        (("Setup",), "1. Setup\nInstall it.\n"),
        (("Linux",), "1.1 Linux\nUse apt.\n"),
        (("Usage",), "Usage\nRun it.\n"),
    ]
    assert [found.text[p.start : p.end] for p in found.pages][2:] == ["", "Usage\nRun it.\n"]


def test_an_entry_without_its_words_begins_with_its_page():
    """A heading that is a picture still has its page."""
    found = convert(pdf_bytes([["one"], ["two"]], [("Pictured", 1), ("Also", 1)]), "a.pdf")
    assert [(s.path, found.text[s.start : s.end]) for s in found.sections] == [
        ((), "one\n"),
        (("Pictured",), "two\n"),
    ]


@pytest.mark.parametrize("title", ["untitled", "Microsoft Word - draft7.doc", "main.tex", ""])
def test_default_titles_are_ignored(title):
    """A default title written by a program is ignored."""
    assert convert(pdf_bytes([["x"]], title=title), "a.pdf").title == ""


def test_a_scan_says_what_it_needs():
    """Without any text there is nothing to ingest."""
    with pytest.raises(StageError) as caught:
        convert(pdf_bytes([[], []]), "scan.pdf")
    assert caught.value.message == "scan.pdf has no text: scanned pages need OCR first"


def test_an_encrypted_file_says_so():
    """The message says that the password is missing."""
    with pytest.raises(StageError, match=r"^secret\.pdf is encrypted"):
        convert(pdf_bytes([["x"]], encrypted=True), "secret.pdf")


@given(st.binary(max_size=50))
def test_rubbish_is_no_pdf(data):
    """Damaged files are named."""
    with pytest.raises(StageError, match=r"^a\.pdf is not a PDF that can be read"):
        convert(b"%PDF-1.4\n" + data, "a.pdf")


def test_hyphens_at_the_end_of_a_line():
    """A word is joined if it occurs as a whole elsewhere; other hyphens belong to the word."""
    pages = [
        [
            "Cases of COVID-",
            "19 and ISO-",
            "9001, over-",
            "the-counter, by Wi-",
            "Fi; well-",
            "known.",
        ],
        [
            "More infor-",
            "mation: Infor-",
            "mation is information. e-",
            "mail is no email but e-mail.",
        ],
    ]
    pages[0] += ["Counter of day-", "to-", "day use."]
    assert convert(pdf_bytes(pages), "a.pdf").text == (
        "Cases of COVID-19 and ISO-9001, over-the-counter, by Wi-Fi; well-known.\nCounter of "
        "day-to-day use.\n"
        "More information: Information is information. e-mail is no email but e-mail.\n"
    )


def test_titles_that_are_no_text_are_named():
    """Half a UTF-16 pair is not text; the pages are read nevertheless."""
    half = "\xfe\xff\xd8\x00\x00A"
    found = convert(pdf_bytes([["One."], ["Two."]], [(half, 0), ("Two", 1)], half), "a.pdf")
    assert found.text == "One.\nTwo.\n"
    assert (found.title, found.sections[-1].path) == ("", ("Two",))
    assert found.remarks == ("damaged and left out: Title, titles of the outline",)
