"""Holding rows out: sizes, groups, and independence of order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.errors import StageError
from llmpipe.formats.split import choose_held_out

UNITS = st.lists(st.integers(0, 30).map(lambda i: b"%d" % i), min_size=10, max_size=60)


@given(UNITS, st.integers(0, 5), st.randoms())
def test_choice_depends_on_content_not_order(units, seed, random):
    """Shuffled rows give the same units to each part; no unit is in two parts."""
    shares = {"eval": 0.2, "test": 0.2}

    def chosen(rows):
        try:
            parts = choose_held_out(rows, shares, seed)
        except StageError as error:
            return error.message
        return {part: sorted(rows[i] for i in positions) for part, positions in parts.items()}

    shuffled = list(units)
    random.shuffle(shuffled)
    first = chosen(units)
    assert first == chosen(shuffled)
    if isinstance(first, dict):
        assert not set(first["eval"]) & set(first["test"])
        for part in first.values():
            assert all(part.count(unit) == units.count(unit) for unit in part)


def test_counts_and_fractions_are_exact_without_groups():
    """A count is met exactly; a fraction is rounded and is never nothing."""
    units = [b"%d" % i for i in range(100)]
    parts = choose_held_out(units, {"eval": 7, "test": 0.1}, 0)
    assert (len(parts["eval"]), len(parts["test"])) == (7, 10)
    assert len(choose_held_out(units, {"eval": 0.001}, 0)["eval"]) == 1


def test_seed_changes_the_choice():
    """Another seed holds other rows out."""
    units = [b"%d" % i for i in range(100)]
    assert choose_held_out(units, {"eval": 10}, 0) != choose_held_out(units, {"eval": 10}, 1)


def test_too_much_is_refused():
    """Asking for more rows than there are, or for less than any group, is an error."""
    with pytest.raises(StageError, match="asks for 5 rows, but only 3"):
        choose_held_out([b"a", b"b", b"c"], {"eval": 5}, 0)
    with pytest.raises(StageError, match=r"split.test stays empty"):
        choose_held_out([b"a"] * 9, {"test": 3}, 0)
