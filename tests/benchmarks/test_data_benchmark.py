"""The benchmark of rows, on a few of them: both sides write the same number."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.data.__main__ import sharegpt

ROOT = Path(__file__).parents[2]


@pytest.mark.heavy
def test_both_sides_write_all_rows(tmp_path: Path) -> None:
    """Neither rejects a row of the benchmark, so that their rates are of the same work."""
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.data", "--rows", "2000", "--repeat", "1",
               "--json", str(file)]  # fmt: skip
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "| llmpipe |" in result.stdout
    (run,) = json.loads(file.read_text())["runs"]
    assert {name: side["rows"] for name, side in run.items()} == {"llmpipe": 2000, "datasets": 2000}


def test_rows_are_drawn_by_seed() -> None:
    """The same rows each time, every one with an answer."""
    rows = list(sharegpt(20))
    assert rows == list(sharegpt(20)) != list(sharegpt(20, seed=1))
    assert all(row["conversations"][-1]["from"] == "gpt" for row in rows)


@pytest.mark.heavy
def test_rows_are_curated_beside_datasketch() -> None:
    """Every side runs; the steps and the whole stage see the same rows."""
    command = [sys.executable, "-m", "benchmarks.data.curate", "--rows", "300", "--repeat", "1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert [line.split("|")[1].strip() for line in result.stdout.splitlines()[4:8]] == [
        "datasketch", "near_duplicates", "decontaminate", "whole stage",
    ]  # fmt: skip
