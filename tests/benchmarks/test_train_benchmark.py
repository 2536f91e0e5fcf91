"""The benchmark of a training's wrapper on a tiny model: both sides take the same steps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.heavy
def test_both_ways_train_the_same(tiny_llama: Path, tmp_path: Path) -> None:
    """The losses of all steps are equal; seconds are only printed, a loaded machine changes them."""
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.train", "--steps", "3", "--repeat", "1",
               "--base-model", str(tiny_llama), "--json", str(file)]  # fmt: skip
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "| axolotl train |" in result.stdout, result.stderr[-2000:]
    figures = json.loads(file.read_text())
    assert figures["same"]
    assert len(figures["losses"]) == 3
    assert figures["losses"][0] != figures["losses"][-1]
