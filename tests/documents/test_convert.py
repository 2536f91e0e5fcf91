"""Which converter reads a file, and what is refused before any converter."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
from document_files import docx_bytes, pdf_bytes

from llmpipe.documents.convert import Options, convert
from llmpipe.errors import StageError


@pytest.mark.parametrize(
    ("name", "data", "media_type"),
    [
        ("a.md", b"# A", "text/markdown"),
        ("a.MARKDOWN", b"# A", "text/markdown"),
        ("a.rst", b"A\n=\n", "text/x-rst"),
        ("a.htm", b"<p>A", "text/html"),
        ("a.txt", b"A", "text/plain"),
        ("README", b"A", "text/plain"),
        ("page", b"\n<!DOCTYPE html><p>A", "text/html"),
        ("a.eml", b"Subject: A\n\nwords", "message/rfc822"),
        ("a.ipynb", b'{"cells": [{"cell_type": "raw", "source": "A"}]}', "application/x-ipynb+json"),
        ("manual.txt", pdf_bytes([["A"]]), "application/pdf"),
        ("letter", docx_bytes([(0, "A")]), "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ],
)  # fmt: skip
def test_a_file_is_told_by_its_bytes_and_its_name(tmp_path, name, data, media_type):
    """Clear bytes count more than the suffix."""
    (tmp_path / name).write_bytes(data)
    (document,) = convert(tmp_path / name, name, Options())
    assert document.media_type == media_type
    assert document.source_digest == hashlib.sha256(data).hexdigest()
    assert "A" in document.text


def test_the_title_of_last_resort(tmp_path):
    """A document without a title is called by its file name."""
    (tmp_path / "opening hours.txt").write_text("9 to 5")
    (document,) = convert(tmp_path / "opening hours.txt", "x", Options())
    assert document.title == "opening hours"


def test_a_huge_file_is_refused_unread(tmp_path):
    """A file of a gigabyte is refused by its size; the message has size and limit."""
    path = tmp_path / "big.txt"
    with path.open("wb") as file:
        file.truncate(1_000_000_000)
    with pytest.raises(StageError) as caught:
        convert(path, "docs/big.txt", Options())
    assert caught.value.message == "docs/big.txt is 1,000 MB; files of up to 100 MB are read"
    assert "max_bytes" in (caught.value.hint or "")


def test_a_file_without_text(tmp_path):
    """A blank file counts as missing text, and is named."""
    for name, data in (("a.md", b"---\ntitle: x\n---\n \n"), ("a.html", b"<script>x</script>")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(StageError, match=rf"(?m)^{name} contains no text$"):
            convert(tmp_path / name, name, Options())


def test_nothing_heavy_is_imported():
    """The planner may ask what reads a file without importing it."""
    code = "import sys, llmpipe.stages.ingest; print([m for m in sys.modules if m in {heavy}])"
    heavy = {
        "bs4",
        "lxml",
        "markdown_it",
        "markdownify",
        "mammoth",
        "docutils",
        "pypdfium2",
        "yaml",
    }
    done = subprocess.run(
        [sys.executable, "-c", code.format(heavy=heavy)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
