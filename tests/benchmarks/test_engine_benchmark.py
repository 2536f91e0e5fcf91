"""The engine's benchmark, on a graph small enough for every test run and without its peers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the benchmark as its users do."""
    command = [sys.executable, "-m", "benchmarks.engine", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def figures(report: str) -> dict[str, list[str]]:
    """Return the rows of the report's tables by their first cells."""
    rows = [line.strip("| ").split(" | ") for line in report.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows}


def test_the_benchmark_measures_what_it_says(tmp_path: Path) -> None:
    """Every case has its figures; cold runs all stages, no-op none, and a changed leaf just one."""
    work = tmp_path / "work"
    result = bench("--stages", "20", "--files", "50", "--repeat", "1", "--workspace", work)
    assert result.returncode == 0, result.stderr
    found = figures(result.stdout)
    cases = ("cold: every stage runs", "no-op: nothing has changed", "status: what would run")
    for case in (*cases, "one leaf changed", "`--version`", "`--help`"):
        assert found[case][0].endswith("s)"), found
    assert "the same 20 commands by `sh -c` in a loop" in found
    assert "50 small files, unchanged: `plan`" in found
    records = [
        json.loads(path.read_text()) for path in work.glob("llmpipe/.llmpipe/runs/*/run.json")
    ]
    records.sort(key=lambda record: record["started"])
    statuses = [Counter(stage["status"] for stage in r["stages"].values()) for r in records]
    assert statuses == [{"done": 20}, {"cached": 20}, {"cached": 19, "done": 1}]


def test_peers_that_are_not_installed_are_named(tmp_path: Path) -> None:
    """A wrong folder for the peers is told at once, and nothing is measured."""
    result = bench("--peers", tmp_path, "--workspace", tmp_path / "work")
    assert result.returncode == 2
    assert f"not installed: {tmp_path}/bin/snakemake, {tmp_path}/bin/dvc" in result.stderr
    assert not (tmp_path / "work").exists()
