"""Front matter is metadata, whatever state it is in."""

from __future__ import annotations

import pytest
from document_files import check_parts
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.documents.markdown import of_text

WORDS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=12)


@pytest.mark.parametrize(
    ("matter", "title", "metadata", "as_text"),
    [
        ("---\ntitle: Fees: an overview\nversion: 1.5\n---\n", "Fees: an overview", {"version": 1.5}, "title"),
        ("---\ntitle: '{{ page.title }}'\nlang: en\n---\n", "H", {"title": "{{ page.title }}", "lang": "en"}, ""),
        ("---\ntitle: {{ page.title }}\nlang: en\n---\n", "H", {"title": "{{ page.title }}", "lang": "en"}, "title"),
        ("---\ntitle: x\nnote: @home\n  and more\n---\n", "x", {"note": "@home and more"}, "note"),
        ("---\n# set by the editor\ntitle: 'a: b\ndraft: yes\n---\n", "'a: b", {"draft": True}, "title"),
        ('+++\ntitle = "T"\nweight = 3\ndate = 2024-01-02\ntags = ["a"]\n+++\n', "T", {"weight": 3, "date": "2024-01-02"}, ""),
        ("+++\ntitle = {{ x }}\nweight = 3\n+++\n", "H", {"title": "{{ x }}", "weight": 3}, "title"),
        ("---\n---\n", "H", {}, ""),
    ],
)  # fmt: skip
def test_what_no_parser_takes_is_metadata_as_text(matter, title, metadata, as_text):
    """Templates, colons and TOML: the text begins below, and what was not parsed is named."""
    found = of_text(f"{matter}# H\n\ntext\n")
    assert (found.text, found.title, dict(found.metadata)) == ("# H\n\ntext\n", title, metadata)
    assert [remark.partition(": ")[2] for remark in found.remarks] == ([as_text] if as_text else [])


@given(st.lists(st.tuples(st.from_regex(r"\A[a-z]{1,5}\Z"), WORDS), min_size=1, max_size=6))
def test_no_value_becomes_text(entries):
    """Whatever stands behind the keys, none of it is in the document."""
    matter = "".join(f"{key}: {value}\n" for key, value in entries)
    found = of_text(f"---\n{matter}---\nbody\n")
    check_parts(found.text, found.sections)
    assert found.text == "body\n"


@pytest.mark.parametrize(
    "text", ["---\nJust words.\n---\nmore\n", "+++\nwords\n+++\n", "---\nx: 1\n"]
)
def test_rules_around_words_are_text(text):
    """What does not begin with a key, or never ends, is part of the document."""
    assert of_text(text).text == text
