"""Rows of frequent values: how many are kept, and that their order changes nothing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmpipe
from llmpipe.errors import SpecError, StageError
from llmpipe.formats.records import write_rows
from llmpipe.stages.curate import Curate
from llmpipe.testing import Done, make_config, run_stage


def curate(folder: Path, rows: list[dict[str, Any]], **step: Any) -> tuple[Done, list[Any]]:
    """Run the step over rows; return what it made, and the rows that are kept."""
    write_rows(folder / "rows.jsonl", rows)
    done = run_stage(Curate, {"data": "rows.jsonl", "steps": [{"step": "balance", **step}]}, folder)
    return done, [json.loads(line) for line in done.outputs["rows"].read_text().splitlines()]


def test_no_value_has_more_than_its_share(tmp_path: Path) -> None:
    """A row without the column has a value, too; the reject says how many there were."""
    rows = [{"text": f"row {n}", "topic": "abbbbcc"[n % 7]} for n in range(21)]
    done, kept = curate(tmp_path, [*rows, {"text": "none"}], column="topic", most=4)
    assert Counter(row.get("topic") for row in kept) == {"a": 3, "b": 4, "c": 4, None: 1}
    assert done.metrics["steps"][0]["kept_by_value"] == {'"b"': 4, '"c"': 4, '"a"': 3, "null": 1}
    first = json.loads(done.outputs["rejects"].read_text().splitlines()[0])
    assert first["reason"] == '12 rows have topic "b", and 4 are kept'
    assert first["keep"] == "raise most to 12"


@given(st.data())
def test_the_order_of_the_rows_changes_nothing(data: st.DataObject) -> None:
    """The same rows are kept; no value has more than twice the rows of the rarest."""
    rows = [{"text": f"row {n}", "topic": "xxxxyyyzz"[n % 9]} for n in range(20)]
    with TemporaryDirectory() as folder:
        _, kept = curate(Path(folder), data.draw(st.permutations(rows)), column="topic", times=2)
    with TemporaryDirectory() as folder:
        _, expected = curate(Path(folder), rows, column="topic", times=2)
    assert {row["text"] for row in kept} == {row["text"] for row in expected}
    counts = Counter(row["topic"] for row in kept)
    assert max(counts.values()) <= 2 * min(counts.values())


@pytest.mark.parametrize("step", [{}, {"most": 3, "times": 2.0}])
def test_one_limit_is_needed(step: dict[str, Any]) -> None:
    """Neither none nor two."""
    fields = {"data": "r.jsonl", "steps": [{"step": "balance", "column": "topic", **step}]}
    with pytest.raises(AssertionError, match="needs a number here or in `times`"):
        make_config(Curate, fields)


def test_a_column_that_no_row_has_is_an_error(tmp_path: Path) -> None:
    """All rows would be of one value, and most of them dropped."""
    with pytest.raises(StageError, match="no row has a column 'topik'"):
        curate(tmp_path, [{"text": "a", "topic": "b"}], column="topik", most=1)
    (tmp_path / "spec.yaml").write_text(
        "version: 1\nname: s\nstages:\n  c: {kind: curate, data: ./rows.jsonl, "
        "steps: [{step: balance, column: topik, most: 1}]}\n"
    )
    with pytest.raises(SpecError) as caught:
        llmpipe.load(tmp_path / "spec.yaml").validate()
    assert "no row of rows.jsonl has a column 'topik'" in str(caught.value)
