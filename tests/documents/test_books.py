"""Notebooks, e-books and messages: their parts are sections, and what is not read is reported."""

from __future__ import annotations

import io
import json
import zipfile
from email.message import EmailMessage

import pytest
from document_files import check_parts, read_or_told
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.documents import eml, epub, ipynb
from llmpipe.errors import StageError


def notebook(*cells: dict[str, object]) -> bytes:
    """Return a notebook in Python."""
    metadata = {"language_info": {"name": "python"}}
    return json.dumps({"nbformat": 4, "metadata": metadata, "cells": cells}).encode()


def markdown_cell(*lines: str) -> dict[str, object]:
    """Return a text cell."""
    return {"cell_type": "markdown", "source": list(lines)}


def code_cell(source: str, *outputs: dict[str, object], count: int = 1) -> dict[str, object]:
    """Return a code cell."""
    return {"cell_type": "code", "source": source, "outputs": outputs, "execution_count": count}


def test_cells_are_sections():
    """Below the headings before them; code has its output, and pictures are reported."""
    found = ipynb.convert(
        notebook(
            markdown_cell("# Fees\n", "In euros, 10<sup>6</sup>."),
            code_cell("print(40)", {"output_type": "stream", "text": ["40\n"]}),
            markdown_cell("More."),
            code_cell(
                "table",
                {"data": {"text/html": "<table><tr><th>a<tr><td>1</table>", "text/plain": "x"}},
                {"data": {"image/png": "AAAA", "text/plain": "<Figure>"}},
                {"ename": "ValueError", "evalue": "\x1b[31mno\x1b[0m"},
                count=2,
            ),
        ),
        "a.ipynb",
    )
    check_parts(found.text, found.sections)
    assert [(s.path, found.text[s.start : s.end].strip()) for s in found.sections] == [
        (("Fees",), "# Fees\nIn euros, 10^6."),
        (("Fees", "In [1]"), "```python\nprint(40)\n```\n\n```\n40\n```"),
        (("Fees",), "More."),
        (("Fees", "In [2]"), "```python\ntable\n```\n\n| a |\n| --- |\n| 1 |\n\n```\nValueError: no\n```"),
    ]  # fmt: skip
    assert (found.title, found.remarks) == ("Fees", ("not read: picture (1)",))


def test_notebooks_of_old_versions():
    """Their cells are in worksheets, and headings are separate cells."""
    cells = [
        {"cell_type": "heading", "level": 2, "source": ["Fees"]},
        {"cell_type": "code", "input": "1", "prompt_number": 3, "outputs": [{"text": "1"}]},
    ]
    data = json.dumps({"nbformat": 3, "worksheets": [{"cells": cells}]}).encode()
    found = ipynb.convert(data, "a.ipynb")
    assert [section.path for section in found.sections] == [("Fees",), ("Fees", "In [3]")]


@given(st.recursive(st.none() | st.text(max_size=3), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["cells", "source", "outputs", "cell_type", "data"]), inner)))  # fmt: skip
def test_any_json_is_a_notebook_or_told(value):
    """Any JSON is read or gives an error message."""
    found = read_or_told(ipynb.convert, json.dumps(value).encode(), "a.ipynb")
    if isinstance(found, str):
        assert found.startswith("a.ipynb is not a notebook")
    else:
        check_parts(found.text, found.sections)


def test_a_notebook_nested_without_end():
    """It is refused like any JSON that is not a notebook."""
    for data in (b"[" * 100_000, b'{"cells": ' * 100_000):
        with pytest.raises(StageError, match=r"^a\.ipynb is not a notebook"):
            ipynb.convert(data, "a.ipynb")


def book(*pages: str, encryption: str = "", css: str = "") -> bytes:
    """Return an e-book of pages."""
    items = "".join(f'<item id="p{at}" href="p%20{at}.xhtml"/>' for at in range(len(pages)))
    order = "".join(f'<itemref idref="p{at}"/>' for at in reversed(range(len(pages))))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr(
            "META-INF/container.xml",
            '<container xmlns="urn:x"><rootfiles><rootfile full-path="OEBPS/b.opf"/></rootfiles></container>',
        )
        archive.writestr(
            "OEBPS/b.opf",
            '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">'
            "<metadata><dc:title>The book</dc:title><dc:creator>A. Writer</dc:creator></metadata>"
            f'<manifest><item id="nav" properties="nav" href="nav.xhtml"/>{items}</manifest>'
            f'<spine><itemref idref="nav"/>{order}</spine></package>',
        )
        for at, page in enumerate(pages):
            archive.writestr(f"OEBPS/p {at}.xhtml", page)
        archive.writestr("OEBPS/st yles/a.css", css)
        if encryption:
            archive.writestr("META-INF/encryption.xml", encryption)
    return out.getvalue()


def test_the_style_sheet_of_a_book_raises():
    """LibreOffice writes powers like that; a missing style sheet is ignored."""
    css = ".s2 { font-size: 0.58em; position: relative; top: -0.33em; vertical-align: baseline }"
    page = (
        '<html><head><link rel="stylesheet" href="st%20yles/a.css"/><link rel="stylesheet" href="b"/>'
        '</head><body><p><span class="s1">10</span><span class="s2">5</span><span> km</span></p></body></html>'
    )
    assert epub.convert(book(page, css=css), "a.epub").text == "10^5 km"
    assert epub.convert(book(page), "a.epub").text == "105 km"


def test_pages_of_a_book_in_the_order_of_reading():
    """In the order of the book, not of the archive; notes are separated."""
    found = epub.convert(
        book(
            "<!DOCTYPE html><html><body><h1>Two</h1><p>40 euros<a epub:type='noteref' href='#n'>1</a></p></body></html>",
            "<html><body><h1>One</h1><p>x</p></body></html>",
        ),
        "a.epub",
    )
    check_parts(found.text, found.sections)
    assert found.text == "# One\n\nx\n\n# Two\n\n40 euros [1]"
    assert (found.title, found.metadata) == ("The book", {"author": "A. Writer"})


def test_books_that_cannot_be_read():
    """Protected and damaged ones have different messages."""
    with pytest.raises(StageError, match="is protected"):
        epub.convert(book("<p>x", encryption="<x URI='OEBPS/p 0.xhtml'/>"), "a.epub")
    with pytest.raises(StageError, match="is not a book"):
        epub.convert(b"PK\x03\x04 rubbish", "a.epub")


def test_a_message():
    """Headers, plain text and forwarded messages; attachments are listed."""
    inner = EmailMessage()
    inner["Subject"], inner["From"] = "Fees", "b@example.org"
    inner.set_content("<h1>Now</h1><p>10<sup>6</sup> €", subtype="html", charset="iso-8859-15")
    message = EmailMessage()
    message["Subject"], message["From"] = "Fwd: Füße", "a@example.org"
    message["Date"] = "Fri, 05 Jan 2024 09:30:00 +0100"
    message.set_content("See below.\n")
    message.add_alternative("<p>formatted</p>", subtype="html")
    message.add_attachment(b"x", maintype="application", subtype="pdf", filename="bill.pdf")
    message.add_attachment(inner)
    found = eml.convert(message.as_bytes(), "a.eml")
    check_parts(found.text, found.sections)
    assert found.text == (
        "# Fwd: Füße\n\nFrom: a@example.org\nDate: 2024-01-05 09:30+01:00\n\nSee below.\n\n"
        "## Fees\n\nFrom: b@example.org\n\n# Now\n\n10^6 €\n\n"
    )
    assert [s.path for s in found.sections][-1] == ("Fwd: Füße", "Fees", "Now")
    assert found.metadata["from"] == "a@example.org"
    assert found.remarks == ("attachments not read: bill.pdf",)


def test_a_message_with_damaged_formatted_text():
    """Its plain text is read nevertheless."""
    message = EmailMessage()
    message.set_content("See below.")
    message.add_alternative("<p>x", subtype="html")
    data = message.as_bytes().replace(b"<p>x", b"\0\1\2")
    found = eml.convert(data, "a.eml")
    assert "See below." in found.text
    assert found.remarks == ("the formatted text is not read: a.eml is a binary file, not text",)


ORDER = "<p>Your order of <b>three lamps</b> for 40 € arrives on 5 March; send it back within 14 days.</p>"


@pytest.mark.parametrize(
    ("plain", "formatted", "is_plain"),
    [
        ("Your mail program cannot show HTML.", ORDER, False),
        ("This is an HTML message. If you cannot read it, open https://example.org/a/b?c=d", ORDER, False),
        ("", ORDER, False),
        ("Your order of three lamps arrives.", ORDER * 3, False),
        ("Your order of three lamps for 40 € arrives on 5 March; send it back within 14 days.", ORDER, True),
        ("Your order of three lamps for 40 € arrives on 5 March; send it back within 14 days.",
         f"<style>.a {{color: red; margin: 1px 2px 3px 4px; padding: none}}</style>{ORDER}<p>Unsubscribe here", True),
        ("See below. All else is said in the lines of the bill.", "<p>formatted</p>", True),
        ("See below.", f"<p>See below.</p><script>{'x = y; ' * 99}</script>", True),
    ],
)  # fmt: skip
def test_a_message_whose_plain_text_says_nothing(plain, formatted, is_plain):
    """The formatted text is read if the plain text is only a placeholder, and this is reported."""
    message = EmailMessage()
    message["Subject"] = "S"
    message.set_content(plain)
    message.add_alternative(formatted, subtype="html")
    found = eml.convert(message.as_bytes(), "a.eml")
    check_parts(found.text, found.sections)
    assert (plain in found.text) == (is_plain or not plain)
    assert ("lamps" in found.text) == ("lamps" in plain or not is_plain)
    assert found.remarks == (
        ()
        if is_plain or not plain
        else ("the formatted text is read: the plain one lacks most of its words",)
    )
