"""Tables drawn with characters become Markdown tables; other drawings stay."""

from __future__ import annotations

import pytest
from document_files import check_parts
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.documents.plain import convert


def shown(text: str) -> str:
    """Return the converted plain text."""
    found = convert(text.encode(), "a.txt")
    check_parts(found.text, found.sections)
    return found.text


ROWS = "| id | name |\n| --- | --- |\n| 1 | Basic |\n| 2 | a\\|b |"


@pytest.mark.parametrize(
    ("drawn", "table"),
    [
        (" id | name  \n----+-------\n  1 | Basic\n  2 | Pro\n(2 rows)", " id | name  \n----|-------\n  1 | Basic\n  2 | Pro\n(2 rows)"),
        ("+----+-------+\n| id | name  |\n+----+-------+\n|  1 | Basic |\n|  2 | a|b   |\n+----+-------+", ROWS),
        ("+----+-------+\n| id | name  |\n+====+=======+\n| 1  | Basic |\n+----+-------+\n| 2  | a|b   |\n+----+-------+", ROWS),
        ("  ┌────┬───────┐\n  │ id │ name  │\n  ├────┼───────┤\n  │  1 │ Basic │\n  │  2 │ a|b   │\n  └────┴───────┘", ROWS),
        ("┏━━━━┳━━━━━━━┓\n┃ id ┃ name  ┃\n┡━━━━╇━━━━━━━┩\n│ 1  │ Basic │\n│ 2  │ a|b   │\n└────┴───────┘", ROWS),
        ("+---+-------+\n| k | long  |\n+===+=======+\n| 1 | two   |\n|   | lines |\n+---+-------+", "| k | long |\n| --- | --- |\n| 1 | two lines |"),
        ("| id | name |\n|----+------|\n| 1  | a    |", "| id | name |\n|----|------|\n| 1  | a    |"),
        ("+----+\n| id |\n+====+\n| 1  |\n| 2  |\n+----+", "| id |\n| --- |\n| 1 |\n| 2 |"),
        ("+------+\n| name |\n+------+\n| x    |\n+------+", "| name |\n| --- |\n| x |"),
    ],
)  # fmt: skip
def test_drawn_tables(drawn, table):
    """From databases, reStructuredText and terminals."""
    assert shown(f"Before.\n\n{drawn}\nAfter.\n") == f"Before.\n\n{table}\nAfter.\n"


@pytest.mark.parametrize(
    "text",
    [
        "+---+---+\n| a | b |\n+---+---+\n| spans |\n+---+---+\n",
        "+---+---+\n| a     |\n+===+===+\n| 1 | 2 |\n+---+---+\n",
        "+---+---+\n| a | b |\n+---+---+\n",  # no row below the names
        "+-----+   +-----+\n| box |-->| box |\n+-----+   +-----+\n",
        "+---+\n|   |\n|   |\n+---+\n",
        "---+---\n",
        "a | b\n---+---+---\n1 | 2\n",
        "+---+---+\n| a | b |\n+---+---+\n| 1 | 2 |\nno end\n",
        "+---+---+\n| a | b |\n+---+---+\n| 1 | 2 |\n+---+---+\n| 3 | 4 |\n+---+---+\n",  # names nothing
    ],
)
def test_other_drawings_stay(text):
    """Boxes, merged cells, tables without a line below the names."""
    assert shown(text) == text


@given(st.lists(st.sampled_from(["+---+---+", "+===+===+", "| a | b |", "| a     |", "---+---", " a | b", "", "x"])).map("\n".join))  # fmt: skip
def test_no_word_is_lost(text):
    """Whatever is drawn."""
    assert sorted(filter(str.isalpha, shown(text))) == sorted(filter(str.isalpha, text))
