"""HTML inside Markdown is converted to what it displays; code is unchanged."""

from __future__ import annotations

import pytest
from document_files import check_parts
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.documents.markdown import of_text

PIECES = [
    "<!--", "-->", "<h1>", "</h1>", "<h2 align=center>", "</h2>", "<sup>", "</sup>", "<table>", "</table>",
    "<details>", "<summary>", "</summary>", "`", "``", "```\n", "\n", "\n\n", "    ", "- ", "text", "[//]: # (x)",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=20).map("".join))
def test_any_tangle_is_covered_by_sections(text):
    """Whatever is open or closed."""
    found = of_text(text.replace("\0", "").replace("\r", ""))
    check_parts(found.text, found.sections)


def paths(text: str) -> list[tuple[str, ...]]:
    """Return the paths of a text's sections."""
    return [section.path for section in of_text(text).sections]


@pytest.mark.parametrize(
    "heading",
    [
        "<h1 align=center>Fees</h1>",
        '<div align="center"><h1>Fees</h1></div>\n',
        "<H1>\n  <img src=x.png>\n  Fees\n</H1>",
        '<h1 align="center"><img src="x.png" alt="Fees"></h1>',
        "<p align=center>\n<h1><a href=x>Fees</a></h1>\n</p>\n",
    ],
)
def test_html_headings_are_headings(heading):
    """With attributes, inside other elements, and as pictures with a description."""
    found = of_text(f"{heading}\n\nForty euros.\n\n<h2>More</h2>\n\ntext")
    sections = [section.path for section in found.sections if section.path]
    assert sections == [("Fees",), ("Fees", "More")]
    assert found.title == "Fees"


def test_comments_are_not_text():
    """On their own lines or inside others, across blank lines and fences; in code they are code."""
    text = (
        "One <!-- gone --> two.\n<!--\ngone\n\n```\ngone\n```\n-->\n[//]: # (gone)\nThree.\n\n"
        "```html\n<!-- kept -->\n<h1>kept</h1>\n```\n\n    <!-- kept -->\n\n`<!-- kept -->`\n"
    )
    found = of_text(text).text
    assert "gone" not in found
    assert found.count("kept") == 4
    assert found.startswith("One  two.\nThree.\n\n```html\n")
    assert paths(text) == [()]


def test_powers_notes_and_formulas():
    """The same as in pages."""
    text = "H<sub>2</sub>O, 2<sup>31</sup>, 40 euros<sup>[1](#fn1)</sup> and `x<sup>2</sup>`."
    assert of_text(text).text == "H2O, 2^31, 40 euros [1] and `x<sup>2</sup>`."


def test_accordions():
    """A question comes before its answer."""
    text = "a\n<details>\n<summary>How much?</summary>\n\n40 euros.\n</details>\n"
    assert [line for line in of_text(text).text.split("\n") if line] == [
        "a",
        "**How much?**",
        "40 euros.",
    ]


TABLE = (
    "<table>\n<tr><th>Plan<th>Price</tr>\n<tr><td><b>Basic</b></td><td>40 | 50</td></tr>\n</table>"
)
ROWS = ["| Plan | Price |", "| --- | --- |", "| **Basic** | 40 \\| 50 |"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (f"a\n{TABLE}\nb\n", ["a", "", *ROWS, "", "b", ""]),
        (f"{TABLE}\n\n*b*\n\n{TABLE}\n", [*ROWS, "", "*b*", "", *ROWS, ""]),
        (f"a {TABLE} b\n", ["a ", "", *ROWS, "", " b", ""]),
        (f"<div>\n\n  {TABLE}\n\n</div>\n", ["<div>", "", *(f"  {row}" for row in ROWS), "", "</div>", ""]),
        (f"- {TABLE}\n", [f"- {ROWS[0]}", *(f"  {row}" for row in ROWS[1:]), ""]),
        (f"1. x\n\n   {TABLE}\n", ["1. x", "", *(f"   {row}" for row in ROWS), ""]),
        ("> " + TABLE.replace("\n", "\n> ") + "\n", [*(f"> {row}" for row in ROWS), ""]),
        (f"{TABLE.replace('Basic', TABLE)}\n", [*ROWS[:2], "| **Plan, Price; Basic, 40 \\| 50** | 40 \\| 50 |", ""]),
        ("<table><tr><th rowspan=2>a<th colspan=2>b<tr><th>c<th>d<tr><td>1<td>2<td>3</table>\n",
         ["| a | b / c | b / d |", "| --- | --- | --- |", "| 1 | 2 | 3 |", ""]),
    ],
)  # fmt: skip
def test_html_tables_are_tables(text, lines):
    """Also in a list or a quote, and with any content in cells."""
    assert of_text(text).text.split("\n") == lines


@pytest.mark.parametrize(
    "text",
    [
        "<table><tr><td>\n\n```js\nif (a < b) {}\n```\n\n</td></tr></table>\n",
        "<table>\n<tr><td>never closed\n",
        f"```html\n{TABLE}\n```\n",
        f"`{TABLE}`\n",
        "<table></table>\n",
    ],
)
def test_tables_that_stay(text):
    """A table in code, a table with code in it, and a table without an end."""
    assert of_text(text).text == text


def test_a_table_that_arranges_is_taken_apart():
    """As in a page: its headings are headings."""
    assert paths("a\n\n<table>\n<tr><td><h3>x</h3>y</td></tr>\n</table>\n") == [(), ("x",)]


def test_in_lists_headings_are_bold():
    """They are not headings of a section there."""
    assert of_text("- <h2>In</h2> a list\n").text == "- **In** a list\n"
