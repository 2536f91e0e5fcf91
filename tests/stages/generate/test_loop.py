"""The loop without a teacher: exactly as many rows as wanted, or a reason with the counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llmpipe.backends.spending import BudgetReachedError
from llmpipe.errors import StageError
from llmpipe.stages.generate.loop import GenerationState, collect, gather
from llmpipe.stages.generate.protocol import GenerateConfig, GeneratedRow, Method, Reject

UNLIMITED = SimpleNamespace(budget_reached=None)
"""A teacher without a budget."""


class Drawing:
    """A method whose passes are given: a number is a row, a text the reason of a reject.

    A pass raises an error that it holds.
    """

    Config = GenerateConfig
    material = "3 seeds"

    def __init__(self, *passes: Iterable[int | str | StageError]) -> None:
        self.passes = [list(each) for each in passes]
        self.drawn = 0

    def draw(self, teacher: Any, number: int) -> Iterator[GeneratedRow | Reject]:
        """Yield the events of a pass; passes after the last are empty."""
        for each in self.passes[number] if number < len(self.passes) else ():
            self.drawn += 1
            if isinstance(each, StageError):
                raise each
            if isinstance(each, int):
                yield GeneratedRow({"text": str(each)}, f"Question {each}", (), ("step",))
            else:
                yield Reject(each, "text", "seeds:1", (), "step", 1)

    def known_questions(self) -> Iterable[str]:
        """Return nothing: there are no seeds."""
        return ()

    def metrics(self) -> Mapping[str, Any]:
        """Return nothing."""
        return {}


def run(drawing: Drawing, wanted: int, **how: Any) -> tuple[GenerationState, list[str]]:
    """Collect from a method; return the state and the warnings."""
    state, told = GenerationState(wanted), list[str]()
    collect(cast("Method", drawing), cast("Any", UNLIMITED), state, told.append, **how)
    return state, told


def test_exactly_as_many_rows_as_wanted_across_passes() -> None:
    """The loop goes on into another pass, and stops at the last row that is wanted."""
    drawing = Drawing([1, "bad", 1], ["bad", 2, 3, 4, 5])
    state, told = run(drawing, 3)
    assert [row.fields["text"] for row in state.rows] == ["1", "2", "3"]
    assert drawing.drawn == 6
    assert not told


@pytest.mark.parametrize(
    ("passes", "why"),
    [
        ([[1], ["bad", 1]], "a whole pass over 3 seeds gave nothing new (rejected: bad 1, dup"),
        ([[1]], "3 seeds: all used up (rejected: nothing)"),
        ([[1, *["bad"] * 9, 2]], "the last 9 results were all rejected (`patience: 9`) (rejected"),
    ],
)
def test_a_shortfall_has_its_reason(passes: list[list[int | str]], why: str) -> None:
    """Fewer rows than wanted fail, unless they are allowed; either way the reason is said."""
    with pytest.raises(StageError) as caught:
        run(Drawing(*passes), 5, patience=9)
    assert caught.value.message.startswith(f"1 of 5 rows: {why}")
    assert "allow_fewer: true" in str(caught.value.hint)
    state, told = run(Drawing(*passes), 5, patience=9, allow_fewer=True)
    assert len(state.rows) == 1
    assert told == [caught.value.message]


def test_no_row_at_all_always_fails() -> None:
    """There is nothing to accept: ``allow_fewer`` does not help."""
    with pytest.raises(StageError, match=r"no usable row from 3 seeds \(rejected: bad 2\)"):
        run(Drawing(["bad", "bad"]), 5, allow_fewer=True)


def test_a_row_ends_a_run_of_rejects() -> None:
    """Patience counts consecutive rejects, duplicates among them."""
    state = GenerationState(3)
    drawing = Drawing([1, 1, 1, 2, 2, 2, 3])
    assert gather(cast("Method", drawing), cast("Any", UNLIMITED), state, print, patience=3) == ""
    assert len(state.rows) == 3


def test_an_error_says_how_far_the_stage_has_come() -> None:
    """A teacher that is gone, or a budget that is spent: rows and rejects so far are counted."""
    with pytest.raises(StageError) as caught:
        run(Drawing([1, 2, "bad", StageError("the teacher is gone", hint="start it")]), 5)
    assert caught.value.message == "the teacher is gone (2 of 5 rows so far; rejected: bad 1)"
    assert caught.value.hint == "start it"
    with pytest.raises(StageError, match=r"^the teacher is gone$"):
        run(Drawing([StageError("the teacher is gone")]), 5)


def test_a_budget_that_is_reached_is_an_error_unless_fewer_rows_are_allowed() -> None:
    """The error is the budget's own, with what was made; without a row it stays one."""
    reached = "the budget of 4 requests is reached"
    with pytest.raises(BudgetReachedError) as caught:
        run(Drawing([1, "bad", BudgetReachedError(reached)]), 5)
    assert caught.value.message == f"{reached} (1 of 5 rows so far; rejected: bad 1)"
    state, told = run(Drawing([1, BudgetReachedError(reached)]), 5, allow_fewer=True)
    assert len(state.rows) == 1
    assert told == [f"{reached} (1 of 5 rows so far; rejected: nothing)"]
    with pytest.raises(BudgetReachedError, match=reached):
        run(Drawing([BudgetReachedError(reached)]), 5, allow_fewer=True)
