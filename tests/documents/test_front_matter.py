"""Front matter becomes metadata, in whatever state it is."""

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
        ("---\n# set by the editor\ntitle: 'a: b\ndraft: yes\n---\n", "'a: b", {"draft": "yes"}, "title"),
        ('+++\ntitle = "T"\nweight = 3\ndate = 2024-01-02\ntags = ["a"]\n+++\n', "T", {"weight": 3, "date": "2024-01-02"}, ""),
        ("+++\ntitle = {{ x }}\nweight = 3\n+++\n", "H", {"title": "{{ x }}", "weight": 3}, "title"),
        ("---\n---\n", "H", {}, ""),
    ],
)  # fmt: skip
def test_what_no_parser_takes_is_metadata_as_text(matter, title, metadata, as_text):
    """Templates, colons and TOML: the text begins below, and unparsed values are listed."""
    found = of_text(f"{matter}# H\n\ntext\n")
    assert (found.text, found.title, dict(found.metadata)) == ("# H\n\ntext\n", title, metadata)
    assert [remark.partition(": ")[2] for remark in found.remarks] == ([as_text] if as_text else [])


@pytest.mark.parametrize(
    "value",
    ["1.20", "01234", "12:30:00", "1:30", "NO", "no", "on", "Off", "y", "1_000", "0x1F", "0o17", "1e3", "+49", "2024-05-01",
     "2024-05-01 12:00:00 +02:00", "2024-1-5", ".5", "5.", "-0", ".inf", "1.10.0", "9" * 30, "9" * 5000,
     "12345678901234567890.1", "0.00001", "=", "Yes, of course"],
)  # fmt: skip
def test_values_stay_as_written(value):
    """A version, a code with zeros, a time, a country: only plain numbers become numbers."""
    assert of_text(f"---\nkey: {value}\nother: x\n---\n").metadata == {"key": value, "other": "x"}


@pytest.mark.parametrize(
    ("value", "number"),
    [("0", 0), ("-7", -7), ("1.5", 1.5), ("52.520008", 52.520008), ("3.0", 3.0), ("true", True), ("FALSE", False)],
)  # fmt: skip
def test_plain_numbers_are_numbers(value, number):
    """Searches compare them."""
    (found,) = of_text(f"---\nkey: {value}\n---\n").metadata.values()
    assert (found, type(found)) == (number, type(number))


def test_toml_stays_as_written():
    """Fractions and times of day."""
    found = of_text("+++\na = 1.20\nb = 1.5\nc = 12:30:00\nd = 1e3\n+++\n")
    assert found.metadata == {"a": "1.20", "b": 1.5, "c": "12:30:00", "d": "1e3"}


def test_keys_and_titles_stay_as_written():
    """Also if they look like something else."""
    found = of_text("---\nNO: Norway\non: x\n1.20: y\nnothing: ~\ntitle: 1984\n---\ntext\n")
    assert found.metadata == {"NO": "Norway", "on": "x", "1.20": "y"}
    assert found.title == "1984"


@given(st.lists(st.tuples(st.from_regex(r"\A[a-z]{1,5}\Z"), WORDS), min_size=1, max_size=6))
def test_no_value_becomes_text(entries):
    """Nothing after the keys becomes part of the document."""
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
