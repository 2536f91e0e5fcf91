"""Random damage to real documents: no traceback, no endless loop.

``--long`` continues for ten minutes.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from email.message import EmailMessage
from pathlib import Path

import openpyxl
import pytest
from document_files import docx_bytes, pdf_bytes
from documents.test_office import presentation, shape

FUZZER = Path(__file__).parent / "fuzz_documents.py"

TABLE = (
    "<table><caption>Prices</caption><tr><th rowspan=2>Year<th colspan=2>Fee</tr><tr><th>new<th>old"
    "</tr><tr><td>2023<td>10<sup>6</sup><td>&frac12; &euro;</table>"
)
PAGE = (
    "<!doctype html><html lang=en><head><title>Pumps</title><style>.up{vertical-align:super}</style>"
    "<body><nav><a href=a>Next</a></nav><main><h1>Pumps</h1><p>H<sub>2</sub>O at 5&nbsp;bar<sup>"
    f"<a href='#n'>3</a></sup>.{TABLE}<details><summary>Why?</summary><p>So.</details><ol start=3>"
    "<li>one<li>two</ol><pre>a\n  b</pre><math><mfrac><mi>a</mi><mn>2</mn></mfrac></math></main>"
)
TEXTS = {
    ".md": f"---\ntitle: Pumps\ntags: [a, b]\n---\n# Pumps\n\n> quoted\n\n- a\n  1. b `c`\n\n{TABLE}\n\n"
    "| a | b |\n|---|---|\n| 1 | 2\\|3 |\n\n```py\nx = 1\n```\n<!-- no -->\n2<sup>31</sup> [x](y)\n",
    ".html": PAGE,
    ".rst": "Pumps\n=====\n\n.. |p| replace:: pump\n\n+---+---+\n| a | b |\n+===+===+\n| 1 | |p||\n+---+---+\n"
    "\n=== ===\n a   b\n=== ===\n 1   2\n=== ===\n\n.. math:: x^2\n\n:Field: 10\\ :sup:`6`\n\n::\n\n  code\n",
    ".txt": "Pumps\n\n5 \u20ac and 3 \u00d7 5\n\n  a    b\n  1    2\n",
    ".csv": 'question,answer\n"How, then?","With a ""pump""."\nWhy?,Because.\n',
    ".jsonl": '{"instruction": "Why?", "output": "So."}\n{"instruction": "How?", "output": "Thus."}\n',
    ".ipynb": json.dumps(
        {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": {},
            "cells": [
                {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# Pumps\n", "x"]},
                {
                    "cell_type": "code", "id": "b", "metadata": {}, "source": "1 + 1",
                    "execution_count": 1,
                    "outputs": [{"output_type": "stream", "name": "stdout", "text": ["2\n"]}],
                },
            ],
        }
    ),
}  # fmt: skip


def book() -> bytes:
    """Return a sheet with merged cells, a date and a formula."""
    made = openpyxl.Workbook()
    sheet = made.active
    for row in (["Year", "Fee", None], ["2023", 5.5, "=B2*2"], [True, 1e6, "x"]):
        sheet.append(row)
    sheet.merge_cells("B1:C1")
    sheet["B2"].number_format = '#,##0.00 "EUR"'
    written = io.BytesIO()
    made.save(written)
    return written.getvalue()


def slides() -> bytes:
    """Return two slides: a title with a list, and a table with merged cells."""
    table = (
        "<p:graphicFrame><a:graphic><a:graphicData><a:tbl><a:tr><a:tc gridSpan='2'><a:txBody><a:p><a:r>"
        "<a:t>Fee</a:t></a:r></a:p></a:txBody></a:tc><a:tc hMerge='1'><a:txBody><a:p/></a:txBody></a:tc>"
        "</a:tr></a:tbl></a:graphicData></a:graphic></p:graphicFrame>"
    )
    return presentation(shape("Pumps", kind="title") + shape("one", "two"), table)


def novel() -> bytes:
    """Return an e-book of two chapters."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as target:
        target.writestr("mimetype", "application/epub+zip")
        target.writestr(
            "META-INF/container.xml",
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="o.opf"/></rootfiles></container>',
        )
        target.writestr(
            "o.opf",
            '<package xmlns="http://www.idpf.org/2007/opf"><metadata/><manifest>'
            '<item id="a" href="a.xhtml" media-type="application/xhtml+xml"/>'
            '<item id="b" href="b.xhtml" media-type="application/xhtml+xml"/>'
            '</manifest><spine><itemref idref="a"/><itemref idref="b"/></spine></package>',
        )
        target.writestr("a.xhtml", PAGE)
        target.writestr("b.xhtml", "<html><body><h2>Valves</h2><p>Text.</p></body></html>")
    return written.getvalue()


def mail() -> bytes:
    """Return a message in two forms that forwards another one."""
    inner = EmailMessage()
    inner["Subject"], inner["From"] = "Valves", "bob@example.org"
    inner.set_content("The inner text.")
    message = EmailMessage()
    message["Subject"], message["From"] = "Pumps \u20ac", "ann@example.org"
    message["Date"] = "Mon, 05 Feb 2024 10:00:00 +0100"
    message.set_content("One 5 \u20ac.")
    message.add_alternative(PAGE, subtype="html")
    message.add_attachment(inner)
    return message.as_bytes()


@pytest.mark.heavy  # the packages are of the extra `rag`
@pytest.mark.timeout(1200)
def test_no_document_crashes_or_stalls_its_converter(tmp_path: Path, long_form: bool) -> None:
    """Files of every kind with a few changed places are read, or refused with a message."""
    seeds, failed = tmp_path / "seeds", tmp_path / "failed"
    seeds.mkdir()
    failed.mkdir()
    made = {ending: text.encode() for ending, text in TEXTS.items()} | {
        ".pdf": pdf_bytes([["Pumps"], ["10 bar"]], [("Pumps", 0)], "Pumps"),
        ".docx": docx_bytes([(1, "Pumps"), (0, "A text.")]),
        ".xlsx": book(),
        ".pptx": slides(),
        ".epub": novel(),
        ".eml": mail(),
    }
    for ending, data in made.items():
        (seeds / f"seed{ending}").write_bytes(data)
    result = subprocess.run(
        [sys.executable, FUZZER, "600" if long_form else "8", failed, seeds],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert not list(failed.iterdir())
    assert sum(json.loads(result.stdout).values()) >= 20
