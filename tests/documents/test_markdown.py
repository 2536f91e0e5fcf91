"""Markdown: sections by headings, front matter as metadata, the text unchanged."""

from __future__ import annotations

from document_files import check_parts
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.documents.markdown import convert, of_text

LINES = [
    "# One", "## Two *b*", "###### Six", "#", "Under\n===", "---", "```", "> # in", "- # in", "text",
    "", "\r", "| a |\n|---|", "title: x", "...", "\x0b", "\u2028", "\x85",
]  # fmt: skip
WORDS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=5)
MARKUP = st.lists(st.sampled_from(LINES) | WORDS).map("\n".join)


@given(MARKUP)
def test_sections_cover_whatever_is_written(text):
    """Whatever the text, its sections follow each other and cover all of it."""
    found = convert(text.encode(), "a.md")
    check_parts(found.text, found.sections)


def test_headings_divide_and_nest():
    """A section ends at the next heading; its path has the headings above it."""
    text = "Before.\n\n# A `b`\n\none\n\n### C\n\ntwo\n\n## D\n\nthree\n\nE\n=\nfour\n"
    found = of_text(text)
    paths = [section.path for section in found.sections]
    assert paths == [(), ("A b",), ("A b", "C"), ("A b", "D"), ("E",)]
    assert [text[section.start : section.end].split("\n")[0] for section in found.sections] == [
        "Before.", "# A `b`", "### C", "## D", "E",
    ]  # fmt: skip
    assert found.title == "A b"
    assert found.text == text


def test_what_only_looks_like_a_heading_divides_nothing():
    """Headings inside code, quotes and lists are not headings of the document."""
    text = "```\n# no\n```\n\n> # no\n\n- # no\n\n    # no\n\n#no\n"
    assert [section.path for section in of_text(text).sections] == [()]


def test_front_matter_becomes_metadata():
    """Single values are kept, lists are not; the title is the document's; the text begins below."""
    top = "---\ntitle: The guide\ntags: [a, b]\nversion: 1.5\ndraft: false\ndate: 2024-05-01\n---\n"
    found = of_text(top + "# Other\n\ntext\n")
    assert found.title == "The guide"
    assert found.metadata == {"version": 1.5, "draft": False, "date": "2024-05-01"}
    assert found.text == "# Other\n\ntext\n"


def test_a_rule_at_the_top_is_no_front_matter():
    """Text between two rules that is not a mapping stays text."""
    for text in (
        "---\nJust words.\n---\nmore\n",
        "---\n[: broken\n---\nmore\n",
        "---\nnever closed\n",
    ):
        assert of_text(text).text == text


def test_line_ends_of_windows():
    """Lines end in a line feed, whatever the file has."""
    found = convert(b"# A\r\n\r\none\r\n## B\r\ntwo", "a.md")
    assert found.text == "# A\n\none\n## B\ntwo"
    assert [section.path for section in found.sections] == [("A",), ("A", "B")]
