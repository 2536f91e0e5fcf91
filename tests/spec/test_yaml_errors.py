"""Text that is not YAML is told at the place of the mistake, not where the parser stops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.errors import SpecError
from llmpipe.spec.load import load_text

STAGES = 'stages:\n  a: {kind: command, run: "x", outputs: {o: o}}\n'
UNCLOSED = "is not closed on its line"


def refusal(text: str) -> tuple[int, int, str]:
    """Return line, column and message of what is wrong with a text, with the hint."""
    with pytest.raises(SpecError) as caught:
        load_text(text, "spec.yaml")
    where = caught.value.location
    assert where is not None
    return where.line, where.column, f"{caught.value.message}\n{caught.value.hint}"


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ('a: 1\nname: "abc\n' + STAGES, 2, 7),
        ("a: 1\nb: {c: 'x, d: y}\ne: 'z'\n", 2, 8),
        ('name: "abc\nb: 1\n', 1, 7),
        ("name: 'abc\n---\nb: 1\n", 1, 7),
        ('a:\n  - "x\n  - "y"\n  - z\n', 2, 5),
        ('"name: abc\nb: "x"\n', 1, 1),
        ('a: 1\nb: ["x", "y]\nc: ["z"]\n', 2, 10),
    ],
)
def test_an_unclosed_quote_is_where_it_is_opened(text: str, line: int, column: int) -> None:
    """The next quote, in another line, was taken for its end, and what follows for the mistake."""
    assert (line, column) == refusal(text)[:2]
    assert UNCLOSED in refusal(text)[2]


@pytest.mark.parametrize(
    ("text", "line", "column", "write"),
    [
        ("a: 1\nb: 'don't do'\n", 2, 9, "is written ''"),
        ("a: {b: 'don't do', c: 3}\n", 1, 13, "is written ''"),
        ('a: "say "no" to it"\n', 1, 10, 'is written \\"'),
    ],
)
def test_a_quote_inside_of_quotes(text: str, line: int, column: int, write: str) -> None:
    """It ends the text; how to write one is said."""
    found = refusal(text)
    assert (line, column) == found[:2]
    assert "is closed before this" in found[2]
    assert write in found[2]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a:\n  c:\n    kind: x\n   run: x\n    d: e\n", 4, 4),
        ("a: 1\nname: abc\n  description: x\nb: 2\n", 3, 3),
        ("a:\n  c:\n    k: v\n    o:\n      o: o\n     e: f\n", 6, 6),
        ("a:\n  c:\n      k: v\n    o: p\n", 4, 5),
        ("a:\n  c:\n    s:\n    - a\n   - b\n", 5, 4),
        ("a:\n   - b\n  - c\n", 3, 3),
        ("  a: 1\nb: 2\n", 2, 1),
        ("a:\n  b: x # with a comment\n\n  # and one more\n     c: d\n", 5, 6),
    ],
)
def test_wrong_indentation_is_called_that(text: str, line: int, column: int) -> None:
    """With how far the line is in, and those above it."""
    found = refusal(text)
    assert (line, column) == found[:2]
    assert "wrong indentation: " in found[2]
    assert "above" in found[2]


@pytest.mark.parametrize(
    ("text", "line", "column", "told"),
    [
        ("a:\n  c: {k: v, o: {o: o}\n  d: {k: v}\n", 2, 6, "this { is not closed"),
        ("a: [1, 2\nb: 3\n", 1, 4, "this [ is not closed"),
        ("a:\n  run: x: y\n", 2, 9, "a text with a colon and a space needs quotes"),
        ("a: 1\nb 2\nc: 3\n", 2, 1, "no colon follows these words"),
        ("a: @b\n", 1, 4, "begins with this character needs quotes"),
        ("a:\n\tb: 1\n", 2, 1, "indent with spaces, not with tabs"),
        ("a:\n  b: 1\n- c\n", 3, 1, "not an entry of a list"),
        ('a: "x\\d"\n', 1, 6, "unknown escape character"),
    ],
)
def test_other_mistakes(text: str, line: int, column: int, told: str) -> None:
    """Brackets, colons, characters that mean something else."""
    found = refusal(text)
    assert (line, column) == found[:2]
    assert told in found[2]


def test_a_text_over_several_lines_is_no_mistake() -> None:
    """Only what follows it on its last line makes one of it."""
    assert load_text('a: "one\n  two"\nb: 1\n').plain() == {"a": "one two", "b": 1}
    assert refusal('a: "one\n  two"\nb: [1\nc: 2\n')[:2] == (3, 4)


@given(st.text("ab:-,'\"[]{}#&*!|>%@` \t\n\r\x85\u2028é", max_size=60))
def test_any_text_is_read_or_told(text: str) -> None:
    """Whatever ends a line to the parser, and wherever it stops."""
    try:
        load_text(text, "spec.yaml")
    except SpecError as error:
        error.render()
