"""How a problem is shown, and what is suggested for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmpipe.errors import EXCERPT, LONGEST_WORD, Location, Problem, did_you_mean


def test_what_is_no_word_is_not_compared() -> None:
    """A mistyped name gets its suggestion; a whole text takes no time."""
    assert did_you_mean("qurey", ["k", "query"]) == "did you mean 'query'?"
    long = "a" * (LONGEST_WORD + 1)
    assert did_you_mean(long, [long[1:]]) is None


def test_a_file_as_a_whole_has_no_line() -> None:
    """There is no first column in a file that is not there."""
    assert Problem("no such file", Location("a.yaml", 0, 0)).render() == "a.yaml: no such file"


@given(
    before=st.text("ab ", max_size=300),
    word=st.text("xyz", min_size=1, max_size=200),
    after=st.text("ab ", max_size=300),
)
def test_the_underline_lies_below_the_word(before: str, word: str, after: str) -> None:
    """However long the line is, a screenful around the place is shown, and the right part marked."""
    place = Location("a.yaml", 1, len(before) + 1, before + word + after, len(word))
    text, underline = place.excerpt()
    at = underline.index("^")
    marked = text[at : at + underline.count("^")]
    assert word.startswith(marked)
    assert marked == word or text.endswith("…")
    assert len(text) <= EXCERPT + 2
