"""The benchmark of estimates: a step on fake tensors beside the same step for real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.memory.__main__ import LIMIT
from benchmarks.memory.cases import CASES

ROOT = Path(__file__).parents[2]
CHOSEN = ["full, 4 micro-batches a step", "QLoRA, checkpointing", "DPO, LoRA"]


@pytest.mark.heavy
def test_fake_tensors_hold_what_real_ones_hold(tmp_path: Path) -> None:
    """Gradients that stay, 4-bit weights, and a loss that uses logits twice."""
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.memory", "--json", str(file), "--cases", *CHOSEN]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    cases = json.loads(file.read_text())["cases"]
    assert [case["case"] for case in cases] == CHOSEN
    assert all(abs(case["fake"] / case["real"] - 1) < LIMIT for case in cases)


def test_there_are_twenty_cases() -> None:
    """As many as the figures of the documentation are from."""
    assert len(CASES) == 20
