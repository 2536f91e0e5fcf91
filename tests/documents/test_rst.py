"""reStructuredText, including Sphinx, without anything from other files."""

from __future__ import annotations

import docutils.parsers.rst.directives
import pytest
from document_files import check_parts
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpipe.documents.rst import convert
from llmpipe.errors import StageError

BLOCKS = [
    "Title\n=====", "Sub\n---", "* item", "1. one", ".. note:: hm", ".. unknown:: a\n   :x: y\n\n   b",
    ":role:`t <u>`", "::\n\n  code", "term\n  meaning", "", "|x|", "`a`_", "+--+\n|a |\n+--+", "====",
    ".. class:: A(b)", "text", ".. code-block:: c\n\n   x ``` y", "  quoted",
]  # fmt: skip
WORDS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=5)
MARKUP = st.lists(st.sampled_from(BLOCKS) | WORDS).map("\n\n".join)


def read(text):
    return convert(text.encode(), "a.rst")


@pytest.mark.slow
@settings(max_examples=100)
@given(MARKUP)
def test_sections_cover_whatever_is_written(text):
    """Whatever the text, its sections follow each other and cover all of it."""
    found = read(text)
    check_parts(found.text, found.sections)


def test_sections_and_their_places():
    """Headings become Markdown headings at the start of their sections."""
    found = read("Top\n===\n\nOne.\n\nInner\n-----\n\nTwo.\n\nNext\n====\n\nThree.\n")
    assert found.text == "# Top\n\nOne.\n\n## Inner\n\nTwo.\n\n# Next\n\nThree.\n"
    assert [section.path for section in found.sections] == [("Top",), ("Top", "Inner"), ("Next",)]
    assert found.title == "Top"


def test_what_sphinx_adds():
    """Roles become their text, signatures code, and directives their content."""
    found = read(
        ".. module:: os\n\n.. function:: open(path, *, mode=0)\n              open(fd)\n\n"
        "   Open it; see :func:`~os.close`, :ref:`the guide <guide>` and :pep:`8`.\n\n"
        "   .. versionadded:: 3.5\n\n   .. versionchanged:: 3.6\n      Faster.\n\n"
        ".. class:: Path(x)\n\n   A path.\n\n.. toctree::\n   :maxdepth: 2\n\n   intro\n\n"
        ".. code-block:: python\n   :caption: x\n\n   print('a')\n\n.. sourcecode::\n\n   b\n"
    )
    assert "`open(path, *, mode=0)`\n`open(fd)`" in found.text
    assert "see os.close, the guide and PEP 8" in found.text
    assert "New in version 3.5" in found.text
    assert "Changed in version 3.6\nFaster." in found.text
    assert "`Path(x)`\n\nA path." in found.text
    assert "```python\nprint('a')\n```\n\n```\nb\n```" in found.text
    assert "intro" not in found.text
    assert "maxdepth" not in found.text


def test_blocks():
    """Lists, definitions, tables, fields, notes and footnotes become plain text."""
    found = read(
        "- one\n- two\n\n  more\n\n3. three\n4. four\n\nterm\n  What it means.\n\n:name: value\n\n"
        ".. note:: Take care.\n\n=== ===\nA   B\n=== ===\n1   2\n=== ===\n\nSee [1]_.\n\n.. [1] The note.\n\n"
        "| line\n| line\n\n>>> 1 + 1\n2\n"
    )
    for part in (
        "- one\n\n- two\n\n  more", "3. three\n4. four", "term\n    What it means.", "name: value",
        "Note: Take care.", "| A | B |\n| --- | --- |\n| 1 | 2 |", "See [1].", "[1] The note.",
        "line\nline", "```\n>>> 1 + 1\n2\n```",
    ):  # fmt: skip
        assert part in found.text


def test_nothing_is_taken_from_other_files(tmp_path, monkeypatch):
    """`include`, `raw` and table files are not followed."""
    secret = tmp_path / "secret.txt"
    secret.write_text("the password, a column\n")
    monkeypatch.chdir(tmp_path)
    text = "\n\n".join(
        f".. {directive}"
        for directive in (
            f"include:: {secret}", f"raw:: html\n   :file: {secret}", f"literalinclude:: {secret}",
            f"csv-table:: t\n   :file: {secret}", "raw:: html\n\n   <script>", "include:: <isonum.txt>",
        )
    )  # fmt: skip
    found = read(f"Words.\n\n{text}\n")
    assert "password" not in found.text
    assert "script" not in found.text
    assert found.text.startswith("Words.")


def test_docutils_is_as_it_was():
    """The changes to docutils end with the conversion."""
    before = docutils.parsers.rst.directives.directive
    read(".. unknown::\n\n   x\n")
    assert docutils.parsers.rst.directives.directive is before


@pytest.mark.parametrize(
    "line",
    ["5. März ist es.", "3. Mai", "A. Smith wrote it.", "C. Müller", "I. Weltkrieg", "iv. und", "XIV. Jahrhundert", "(a) x",
     "3) Mai", "(12) x", "1986. A great year"],
)  # fmt: skip
def test_what_looks_like_an_item_keeps_its_number(line):
    """A date, a name or a century at the start of a line parses as a list, but stays as it is."""
    assert read(f"Before.\n\n{line}\n\nAfter.\n").text == f"Before.\n\n{line}\n\nAfter.\n"


def test_items_are_numbered_as_they_are_written():
    """In letters, Roman numerals and brackets; items without a number get one."""
    text = "y. one\nz. two\n\n(iv) four\n(v) five\n\n#. first\n#. second\n"
    assert read(text).text == "y. one\nz. two\n\n(iv) four\n(v) five\n\n1. first\n2. second\n"


@pytest.mark.slow
def test_nesting_without_end():
    """Quotes nested a thousand deep are refused, not followed."""
    with pytest.raises(StageError, match=r"^a\.rst cannot be read as reStructuredText"):
        read("\n\n".join(f"{' ' * depth}x" for depth in range(1000)))


def test_powers_and_merged_cells():
    """Scripts stay scripts; spanning cells are repeated, and header rows are joined."""
    text = """2\\ :sup:`31` bytes of H\\ :sub:`2`\\ O

+--------+-----------+
| Region | 2023      |
|        +-----+-----+
|        | Q1  | Q2  |
+========+=====+=====+
| North  | 1   | 2   |
+        +-----+-----+
|        | 3   | 4   |
+--------+-----+-----+
"""
    assert convert(text.encode(), "a.rst").text == (
        "2^31 bytes of H2O\n\n| Region | 2023 / Q1 | 2023 / Q2 |\n| --- | --- | --- |\n"
        "| North | 1 | 2 |\n| North | 3 | 4 |\n"
    )


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("===== ==== ====\n       Min  Max\n===== ==== ====\nAsh:  1.36 3.23\n===== ==== ====",
         "|  | Min | Max |\n| --- | --- | --- |\n| Ash: | 1.36 | 3.23 |"),
        ("= ===== =====\n\n  Min   Max\n  in g  in g\n= ===== =====\na 1.36   3.23\n= ===== =====",
         "|  | Min in g | Max in g |\n| --- | --- | --- |\n| a | 1.36 | 3.23 |"),
        ("===== ==== ====\n      Min  Max\nName  low  high\n===== ==== ====\nAsh:  1.36 3.23\n      x\n===== ==== ====",
         "| Name | Min / low | Max / high |\n| --- | --- | --- |\n| Ash: | 1.36 x | 3.23 |"),
    ],
)  # fmt: skip
def test_names_of_columns_beside_a_blank_cell(table: str, expected: str) -> None:
    """A line with a blank first cell begins a row if there is no row above to continue."""
    found = convert(table.encode(), "a.rst")
    assert (found.text.strip(), found.remarks) == (expected, ())


def test_a_line_over_several_columns_is_named() -> None:
    """With an underline it is one cell; without one it is reported as lost."""
    table = "===== ==== ====\n      In grams\n{}      Min  Max\n===== ==== ====\nAsh:  1.36 3.23\n===== ==== ====\n"
    named = convert(table.format("----- ---------\n").encode(), "a.rst")
    assert named.text.split("\n")[0] == "|  | In grams / Min | In grams / Max |"
    assert named.remarks == ()
    passed_over = convert(table.format("").encode(), "a.rst")
    assert passed_over.text.split("\n")[0] == "|  | Min | Max |"
    assert passed_over.remarks == ("not read in tables: 'In grams'",)


@pytest.mark.parametrize(
    "table",
    [
        "===== ==== ====\nA 1.36 3.23\nA 1 2\n===== ==== ====",
        "+---+---+\n| a | b\n+---+---+",
        "===== ====\nx y\n\nlast words",
    ],
)
def test_a_table_that_cannot_be_read_stays_as_it_is(table: str) -> None:
    """Misaligned cells, missing borders: nothing is lost."""
    assert convert(f"a\n\n{table}\n".encode(), "a.rst").text == f"a\n\n```\n{table}\n```\n"


@pytest.mark.slow
@pytest.mark.parametrize("leaf", ["x", "image:: x.png"])
@pytest.mark.parametrize("order", [1, -1])
def test_substitutions_that_multiply(leaf: str, order: int) -> None:
    """Twenty nested definitions would give a million words or pictures."""
    last = f".. |a20| {leaf if '::' in leaf else 'replace:: ' + leaf}"
    lines = [*(f".. |a{at}| replace:: |a{at + 1}| |a{at + 1}|" for at in range(20)), last]
    source = "\n".join(["|a0|", "", *lines[::order], ""])
    with pytest.raises(StageError) as caught:
        convert(source.encode(), "a.rst")
    assert caught.value.message.startswith("a.rst grows by substitutions")


def test_many_substitutions() -> None:
    """A name that is used everywhere is fine, and so is a nested one."""
    names = "\n\n.. |name| replace:: |first| *Name*\n.. |first| replace:: First\n"
    found = convert(("|name|\n\n" * 300 + names).encode(), "a.rst")
    assert found.text.count("First Name") == 300
