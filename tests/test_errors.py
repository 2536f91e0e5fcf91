"""How a problem is shown, and what is suggested for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmpipe.errors import (
    EXCERPT,
    LONGEST_LINE,
    LONGEST_WORD,
    MOST_PROBLEMS,
    Location,
    Problem,
    SpecError,
    UsageError,
    did_you_mean,
)


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


def test_a_flood_of_problems_is_counted() -> None:
    """The first by their places are shown, and how many more there are; as data, too."""
    found = [Problem("wrong", Location("a.yaml", line, 1)) for line in range(1, 252)]
    error = SpecError(found[::-1])
    lines = error.render().splitlines()
    assert lines[:2] == ["a.yaml:1:1: wrong", "a.yaml:2:1: wrong"]
    assert lines[MOST_PROBLEMS - 1 :] == ["a.yaml:100:1: wrong", "and 151 more problems"]
    data = error.as_json()
    assert (len(data["problems"]), data["more"]) == (MOST_PROBLEMS, 151)
    assert len(error.problems) == 251
    assert SpecError(found[: MOST_PROBLEMS + 1]).render().endswith("\nand 1 more problem")
    few = SpecError(found[:MOST_PROBLEMS])
    assert "more" not in few.render()
    assert few.as_json()["more"] == 0


def test_a_message_of_megabytes_is_cut() -> None:
    """A key or a list of names as long as that ends in how long it is."""
    error = UsageError("a" * 5000, hint=f"it has: {'b, ' * 9000}\nor nothing")
    message, names, last = error.render().splitlines()
    assert message == "a" * LONGEST_LINE + "… (5,000 characters)"
    assert names.endswith("… (27,008 characters)")
    assert len(names) < LONGEST_LINE + 40
    assert last == "   or nothing"
