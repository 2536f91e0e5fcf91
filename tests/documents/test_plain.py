"""Plain text: encodings are recognized, binary files are refused."""

from __future__ import annotations

import random

import pytest
from document_files import check_parts, read_or_told
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.documents import markdown
from llmpipe.documents.plain import convert
from llmpipe.errors import StageError

GERMAN = (
    "Die Größe der Tür beträgt fünf Fuß; über den Preis müssen wir später noch schön reden.\n" * 5
)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_any_text_is_one_section(text):
    """UTF-8 is read unchanged."""
    found = convert(text.encode(), "a.txt")
    assert found.text == text.removeprefix("\ufeff")
    check_parts(found.text, found.sections)


@given(st.binary())
def test_any_bytes_are_text_or_refused(data):
    """There is no other outcome."""
    found = read_or_told(convert, data, "a.txt")
    if isinstance(found, str):
        assert found.startswith("a.txt is ")
    else:
        check_parts(found.text, found.sections)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252"]
)
def test_encodings(encoding):
    """By byte order mark, as UTF-8, or by a guess."""
    assert convert(GERMAN.encode(encoding), "a.txt").text == GERMAN


def test_dates_at_the_beginning_of_a_line():
    """They are not list items; in Markdown, the text also stays as it is."""
    text = "Die Frist endet am\n5. März 2024.\n\n3. Mai ist Feiertag.\n5. Juni nicht.\n"
    assert convert(text.encode(), "a.txt").text == text
    assert markdown.convert(text.encode(), "a.md").text == text


def test_utf_16_by_its_mark():
    """Both byte orders."""
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        assert convert(mark + "Grüße".encode(encoding), "a.txt").text == "Grüße"


@pytest.mark.parametrize(
    "data",
    [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", random.Random(0).randbytes(5000).replace(b"\0", b"\1"),
     b"text, and then\0", random.Random(1).randbytes(64) + b"\0"],
    ids=["a picture", "noise", "a NUL", "short noise"],
)  # fmt: skip
def test_binary_is_refused(data):
    """A picture with the suffix of a text file is named."""
    with pytest.raises(StageError, match=r"(?m)^notes\.txt is a binary file, not text$"):
        convert(data, "notes.txt")
