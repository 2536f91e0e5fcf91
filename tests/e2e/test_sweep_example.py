"""The example ``sweep`` run for real: its figures, and what a new point costs."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "sweep"

BEST = 'env.DISCOUNT="0.9",env.ORDER="6"'


DISCOUNTS = ("0.3", "0.6", "0.9")


def readme() -> dict[str, dict[str, str]]:
    """Read the README's table: figures by discount and order."""
    lines = (EXAMPLE / "README.md").read_text("utf-8").splitlines()
    rows = [
        re.findall(r"\d[\d.]*", line) for line in lines if re.match(r"\| (discount )?0\.", line)
    ]
    return {discount: dict(zip("2468", figures, strict=True)) for discount, *figures in rows}


def run(folder: Path) -> dict[str, Any]:
    """Run the spec and return the stages of the result."""
    command = [sys.executable, "-m", "llmpipe", "run", "spec.yaml", "--json"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    stages: dict[str, Any] = json.loads(result.stdout)["stages"]
    return stages


def test_the_sweep_chooses_and_measures(tmp_path: Path) -> None:
    """The README's figures; and three more points are all that a fifth order costs."""
    pytest.importorskip("zaragoza_construction_faq", reason="the example's data")
    folder = tmp_path / "sweep"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".llmpipe", "*.lock.yaml"))
    stages = run(folder)
    assert len(stages) == 27
    choice = stages["best"]["metrics"]
    assert choice["point"] == BEST
    points = {f'env.DISCOUNT="{d}",env.ORDER="{n}"': (d, n) for d in DISCOUNTS for n in "2468"}
    assert choice["points"].keys() == points.keys()
    for point, (discount, order) in points.items():
        assert f"{choice['points'][point]:.3f}" == readme()[discount][order]
    final = json.loads(Path(stages["final"]["outputs"]["figures"]).read_text())
    assert math.isclose(final["bits_per_byte"], 2.056, abs_tol=0.0005)

    spec = folder / "spec.yaml"
    spec.write_text(spec.read_text().replace('"8"]', '"8", "7"]'))
    ran = sorted(name for name, stage in run(folder).items() if stage["status"] == "done")
    new = [f'env.DISCOUNT="{d}",env.ORDER="7"' for d in DISCOUNTS]
    assert ran == ["best", *(f"{stage}@{point}" for stage in ("dev", "fit") for point in new)]
