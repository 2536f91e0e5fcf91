"""Holding rows out: sizes, units, and independence of order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmpipe.formats.split import Candidate, choose_held_out

CANDIDATES = st.lists(
    st.builds(
        Candidate,
        st.integers(0, 30).map(lambda i: b"%d" % i),
        st.integers(0, 40).map(lambda i: b"%d" % i),
    ),
    max_size=60,
)
SHARES = st.fixed_dictionaries(
    {
        part: st.integers(1, 20) | st.floats(0.01, 0.99, exclude_max=True)
        for part in ("eval", "test")
    }
)


def single(count):
    """Rows that have nothing in common."""
    return [Candidate(b"%d" % i, b"%d" % i) for i in range(count)]


def taken(rows, parts):
    """The rows of each part, sorted."""
    return {
        name: sorted((rows[i].unit, rows[i].question) for i in part.positions)
        for name, part in parts.items()
    }


@given(CANDIDATES, SHARES, st.integers(0, 5), st.randoms())
def test_choice_depends_on_content_not_order(rows, shares, seed, random):
    """Shuffled rows give each part the same rows, and the same unit that does not fit."""
    shuffled = list(rows)
    random.shuffle(shuffled)
    first, other = choose_held_out(rows, shares, seed), choose_held_out(shuffled, shares, seed)
    assert taken(rows, first) == taken(shuffled, other)
    for name, part in first.items():
        assert [rows[i].unit for i in part.too_large] == [
            shuffled[i].unit for i in other[name].too_large
        ]


@given(CANDIDATES, SHARES, st.integers(0, 5))
def test_nothing_is_shared_and_every_missing_row_is_explained(rows, shares, seed):
    """Units stay whole, parts share no question, none gets too many, and one too few says why."""
    parts = choose_held_out(rows, shares, seed)
    units = [row.unit for row in rows]
    for part in parts.values():
        got = [rows[i].unit for i in part.positions]
        assert all(got.count(unit) == units.count(unit) for unit in set(got))
        assert len(got) <= part.wanted
        assert list(part.positions) == sorted(set(part.positions))
        if part.too_large:
            assert len(got) < part.wanted < len(got) + len(part.too_large)
    questions = [{rows[i].question for i in part.positions} for part in parts.values()]
    assert not questions[0] & questions[1]
    first = next(iter(parts.values()))
    if len(first.positions) < first.wanted and not first.too_large:
        assert len(first.positions) == len(rows)


def test_counts_and_fractions_are_exact_without_groups():
    """A count is met exactly; a fraction is rounded and is never nothing."""
    parts = choose_held_out(single(100), {"eval": 7, "test": 0.1}, 0)
    assert [len(part.positions) for part in parts.values()] == [7, 10]
    assert len(choose_held_out(single(100), {"eval": 0.001}, 0)["eval"].positions) == 1


def test_seed_changes_the_choice():
    """Another seed holds other rows out."""
    first, other = (choose_held_out(single(100), {"eval": 10}, seed) for seed in (0, 1))
    assert first != other


def test_an_added_row_moves_few_others():
    """The order of the units depends on each alone."""
    before, after = (choose_held_out(single(n), {"test": 20}, 0)["test"] for n in (100, 101))
    assert len(set(before.positions) & set(after.positions)) >= 19


def test_the_smallest_unit_that_does_not_fit_is_named():
    """Where nothing fits, the part is empty and names the unit that needs least."""
    rows = [Candidate(b"a", b"1")] * 9 + [Candidate(b"b", b"2")] * 5
    part = choose_held_out(rows, {"test": 3}, 0)["test"]
    assert (part.positions, part.too_large) == ((), (9, 10, 11, 12, 13))
