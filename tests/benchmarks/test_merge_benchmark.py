"""The benchmark of merges on its tiny model: one adapter with both faults that others merge wrongly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.merge.__main__ import LIMIT
from benchmarks.merge.cases import CASES
from benchmarks.merge.training import HELD_OUT, rows

ROOT = Path(__file__).parents[2]
CASE = "qlora on lm_head, tied"


@pytest.mark.heavy
def test_a_merged_model_is_the_one_that_was_trained(tmp_path: Path) -> None:
    """Trained by Axolotl, llmpipe's product predicts what was trained; PEFT's and Axolotl's do not."""
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.merge", "--size", "tiny", "--cases", CASE,
               "--json", str(file)]  # fmt: skip
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert f"| {CASE} |" in result.stdout
    assert len(result.stdout.splitlines()) == 5  # nothing of the training among the table
    (figures,) = json.loads(file.read_text())["cases"]
    assert figures["base"]["mean_kl"] > 0.1
    assert figures["llmpipe"]["mean_kl"] < LIMIT / 1000
    assert figures["PEFT"]["mean_kl"] > LIMIT
    assert figures["Axolotl"]["mean_kl"] > LIMIT


def test_what_is_held_out_is_not_trained_on() -> None:
    """The rows come from the package's questions, each in one part only."""
    trained, held_out = rows()
    assert len(held_out) == HELD_OUT
    assert not {str(row) for row in trained} & {str(row) for row in held_out}
    assert len(CASES) >= 6
