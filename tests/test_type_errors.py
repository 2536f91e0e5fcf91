"""The words for a value of the wrong type."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.type_errors import (
    SHOWN,
    bounded,
    dotted,
    mismatch,
    non_empty,
    one_of,
    shown,
    steps_in,
)


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({}, "a number"),
        ({"ge": 1}, "a number of at least 1"),
        ({"gt": 0}, "a number above 0"),
        ({"le": 9}, "a number of at most 9"),
        ({"lt": 9}, "a number below 9"),
        ({"ge": 1, "le": 9}, "a number from 1 to 9"),
        ({"gt": 0, "le": 1}, "a number above 0 and at most 1"),
        ({"ge": 0, "lt": 1}, "a number of at least 0 and below 1"),
    ],
)
def test_every_bound_of_a_number_is_named(bounds: dict[str, float], words: str) -> None:
    """Each combination of bounds reads as a sentence."""
    assert bounded("a number", **bounds) == words


def test_a_message_names_each_alternative_once() -> None:
    """A single choice needs no list."""
    assert mismatch(["a string", "a list", "a string"], 3) == "must be a string or a list, not 3"
    assert mismatch([one_of(["a", 1, True])], None) == "must be one of a, 1, true, not null"
    assert mismatch([one_of([1])], "x") == 'must be 1, not "x"'
    assert non_empty("a list") == "a non-empty list"


@pytest.mark.slow
@given(st.recursive(st.none() | st.text(), st.lists, max_leaves=20))
def test_a_value_is_shown_in_bounded_space(value: Any) -> None:
    """A long value is cut, and the cut is visible."""
    text = shown(value)
    assert len(text) <= SHOWN
    assert text.endswith("…") or msgspec.json.decode(text) == value


class Leaf(msgspec.Struct):
    """A field whose type a value can fail to have."""

    number: int


class Tree(msgspec.Struct):
    """A place several steps deep."""

    leaves: list[Leaf]


@given(st.integers(0, 20))
def test_the_place_in_a_message_of_msgspec_is_read(index: int) -> None:
    """The steps lead to the value, and are written as a person writes them."""
    data = {"leaves": [{"number": 1}] * index + [{"number": "x"}]}
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(data, Tree)
    assert steps_in(str(caught.value)) == ("leaves", index, "number")
    assert dotted(("leaves", index, "number")) == f"leaves[{index}].number"
