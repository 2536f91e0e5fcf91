"""The stage kind ``word_count``: what every kind must keep, and what it counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from word_count.stage import WordCount

from llmpipe.errors import StageError
from llmpipe.testing import StageConformance, require_same_twice, run_stage

ROWS = [{"text": "a rose is a rose"}, {"text": "A word"}]
CONFIG = {"data": "./rows.jsonl", "column": "text"}


class TestConformance(StageConformance):
    """The tests that every stage kind passes."""

    stage = WordCount
    configs = (CONFIG, {**CONFIG, "case": "keep", "top": 3})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with rows."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def test_words_are_counted(folder: Path) -> None:
    """Words that differ in case are one, unless the config says otherwise."""
    done = run_stage(WordCount, {**CONFIG, "top": 2}, folder)
    assert done.metrics == {"words": 7, "different": 4}
    assert json.loads(done.outputs["counts"].read_text())["counts"] == {"a": 3, "rose": 2}
    kept = run_stage(WordCount, {**CONFIG, "case": "keep"}, folder)
    assert kept.metrics == {"words": 7, "different": 5}


def test_a_table_is_read_as_well(tmp_path: Path) -> None:
    """Rows come from any file that llmpipe reads."""
    (tmp_path / "rows.csv").write_text("id,text\n1,one two\n")
    done = run_stage(WordCount, {**CONFIG, "data": "./rows.csv"}, tmp_path)
    assert done.metrics["words"] == 2


def test_the_same_rows_give_the_same_bytes(folder: Path) -> None:
    """As ``determinism = "exact"`` promises."""
    require_same_twice(WordCount, CONFIG, folder)


def test_a_missing_column_is_named(folder: Path) -> None:
    """With the place of the row, and the columns that there are."""
    with pytest.raises(StageError, match=r"rows\.jsonl:1: the row has no column 'body'") as caught:
        run_stage(WordCount, {**CONFIG, "column": "body"}, folder)
    assert caught.value.hint == "it has: text"
