"""Sentences are found in prose, lists and wrapped lines, and together contain all words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.retrieval.sentences import sentence_spans


def sentences(text: str) -> list[str]:
    """Return the text of the sentences."""
    return [text[start:end] for start, end in sentence_spans(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("He said “no.” Then he left.", ["He said “no.”", "Then he left."]),
        ("Use a tool, e.g. a hammer. Done.", ["Use a tool, e.g. a hammer.", "Done."]),
        ("A line that\nis wrapped. Next.", ["A line that\nis wrapped.", "Next."]),
        ("Heading\n\nText below", ["Heading", "Text below"]),
        ("Buy:\n- milk\n- bread", ["Buy:", "- milk", "- bread"]),
        (
            "| a | b |\n| --- | --- |\n| 1 | 2 |\nText",
            ["| a | b |", "| --- | --- |", "| 1 | 2 |", "Text"],
        ),
        ("一つ目。二つ目。", ["一つ目。", "二つ目。"]),
        ("Version 3.11 is out.", ["Version 3.11 is out."]),
        ("  \n ", []),
    ],
)
def test_where_sentences_end(text: str, expected: list[str]) -> None:
    """Periods, empty lines and list items end a sentence; lowercase letters do not begin one."""
    assert sentences(text) == expected


@given(st.text(alphabet="aB .!?。\n-1)”", max_size=80))
def test_no_word_is_lost(text: str) -> None:
    """The sentences follow each other, with only whitespace between them."""
    end = 0
    for start, stop in sentence_spans(text):
        assert end <= start < stop
        assert not text[end:start].strip()
        assert text[start:stop] == text[start:stop].strip()
        end = stop
    assert not text[end:].strip()


@pytest.mark.parametrize(
    "text",
    [
        "Die Einschreibung beginnt am 3. Januar 2025.",
        "It opens on Sept. 5, 2024.",
        "See Art. 5 Abs. 2 and Fig. 3.",
        "It costs approx. 5 euros.",
    ],
)
def test_a_full_stop_in_a_date_or_abbreviation_ends_no_sentence(text: str) -> None:
    """Regression: the day was cut from its month, so any date with that day was support."""
    assert sentence_spans(text) == [(0, len(text))]


def test_a_number_may_end_a_sentence() -> None:
    """The text after it is not a month."""
    assert (
        len(sentence_spans("It costs 40. Children pay 20. Der Preis ist 5. Hunde zahlen 3.")) == 4
    )
