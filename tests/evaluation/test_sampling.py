"""Sampling rows by content, so that adding or removing a row keeps the others."""

from __future__ import annotations

from llmpipe.evaluation.sampling import drawn

ROWS = [{"n": n} for n in range(20)]


def test_a_sample_depends_on_seed_and_content() -> None:
    """Not on the order; if all rows are wanted, all are returned."""
    first = drawn(ROWS, 5, 0)
    assert len(first) == 5
    assert first == sorted(first, key=lambda row: row["n"])
    assert sorted(drawn(ROWS[::-1], 5, 0), key=lambda row: row["n"]) == first
    assert drawn(ROWS, 5, 1) != first
    assert drawn(ROWS, None, 0) == drawn(ROWS, 20, 0) == ROWS


def test_a_row_more_changes_one_at_most() -> None:
    """All other rows stay in the sample, except at most one."""
    first = drawn(ROWS, 5, 0, lambda row: row["n"])
    more = drawn([*ROWS, {"n": 99}], 5, 0, lambda row: row["n"])
    assert len([row for row in first if row in more]) >= 4
