"""Simple tables are converted exactly as by the HTML converter."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpipe.documents.html import fragment
from llmpipe.documents.simple_tables import written

pytestmark = pytest.mark.heavy  # the packages are of the extra `rag`

WORDS = st.text(st.sampled_from("ab1.:-_*![]()+~=/'\" \n\t\u00a0\u00e9\u6f22$@%"), max_size=12)
PIECES = st.one_of(
    WORDS,
    WORDS.map(lambda words: f"<code>{words}</code>"),
    WORDS.map(lambda words: f'<a href="https://example.org/a?b=1">{words}</a>'),
    st.just('<a href="https://a.org">https://a.org</a>'),
)
CELLS = st.lists(PIECES, max_size=4).map("".join)


@st.composite
def tables(draw: st.DrawFn) -> str:
    """Tables of cells with or without names, with equal rows."""
    width = draw(st.integers(1, 3))
    gap = draw(st.sampled_from(["", "\n  "]))
    first = draw(st.sampled_from(["th", "td"]))
    rows = []
    for number in range(draw(st.integers(1, 4))):
        kind = "td" if number else first
        cells = gap.join(f"<{kind}>{draw(CELLS)}</{kind}>" for _ in range(width))
        rows.append(f"<tr>{gap}{cells}{gap}</tr>")
    return f"<table>{gap}{gap.join(rows)}{gap}</table>"


@settings(max_examples=300, deadline=None)
@given(tables())
def test_both_ways_write_the_same(table: str) -> None:
    """Whenever the fast converter returns anything."""
    assert written(table) in ("", fragment(table))


def test_most_tables_are_simple() -> None:
    """Words, code and links, in rows of equal length."""
    link = '<a href="https://example.org">the\nmanual</a>'
    table = f"<table>\n<tr><th>Name</th><th>What</th></tr>\n<tr><td><code>x</code></td><td>{link}</td></tr></table>"
    assert written(table) == (
        "| Name | What |\n| --- | --- |\n| `x` | [the manual](https://example.org) |"
    )
    assert written(table) == fragment(table)


@pytest.mark.parametrize(
    "table",
    [
        "<table><tr><td colspan=2>a</td></tr></table>",
        "<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>",
        "<table><tr><th>a</th></tr><tr><th>b</th></tr></table>",
        "<table><tr><td>10<sup>6</sup></td></tr></table>",
        "<table><tr><td>a &amp; b</td></tr></table>",
        "<table><tr><td>a | b</td></tr></table>",
        "<table><tr><td></td></tr></table>",
        "<table><tr><td>a</td></tr>",
    ],
)
def test_all_else_is_left_to_the_reader_of_pages(table: str) -> None:
    """Including merged cells, powers, special characters and entities."""
    assert written(table) == ""
