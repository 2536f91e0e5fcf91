"""Which rows a format stage looks at closely: those whose question several rows ask."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.formats.leakage import question_key
from llmpipe.stages import format_leaks
from llmpipe.stages.format_rows import Rows


@pytest.mark.parametrize("together", [1, 7, 1 << 19])
@given(asked=st.lists(st.integers(0, 30).map(str), max_size=60))
def test_repeated_questions_are_those_that_two_rows_ask(together: int, asked: list[str]) -> None:
    """The answer is exact, however few questions are compared together."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(format_leaks, "TOGETHER", together)
        rows = Rows(Path(folder), grouped=False)
        for line, text in enumerate(asked):
            rows.add(b"{}", [text], (0, line))
        rows.store()
        found = format_leaks._repeated(rows)
    counts = Counter(question_key(text.encode()) for text in asked)
    assert found == {key for key, count in counts.items() if count > 1}
