"""The benchmark of a long prompt beside a stream, run as its users do, on little."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.heavy
def test_every_batch_and_both_ways_have_figures() -> None:
    """llama.cpp's own batch, a given one and the measured one; directly and through the guard."""
    command = [sys.executable, "-m", "benchmarks.serve", "--threads", "1", "--rounds", "1", "--batches",
               "16", "--prompt", "120", "--context", "512", "--pieces", "10"]  # fmt: skip
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    rows = [line.strip("| ").split(" | ") for line in result.stdout.splitlines() if "| " in line]
    named = {name: cells for name, *cells in rows}
    assert {"2048 (llama.cpp's own)", "16", "llama.cpp", "the guard"} <= set(named)
    assert any(name.startswith("measured: ") for name in named)
    assert all(
        cells[0].endswith("s") for name, cells in named.items() if name not in ("batch", "asked")
    )
