"""The example ``rag-sweep`` run for real, on two of its lengths: the README's figures, the choice."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def readme() -> dict[str, list[float]]:
    """Read the README's table: the figures of each length."""
    text = (EXAMPLES / "rag-sweep" / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", text, re.MULTILINE)
    return {
        tokens: [float(cell.strip("*")) for cell in cells.split(" | ")] for tokens, cells in rows
    }


def test_the_sweep_finds_what_the_readme_says(tmp_path: Path) -> None:
    """Within a few questions, as int8 products differ between processors; the longer chunks win."""
    for name in ("rag-sweep", "rag-docs"):
        ignored = shutil.ignore_patterns(".llmpipe", "*.lock.yaml")
        shutil.copytree(EXAMPLES / name, tmp_path / name, ignore=ignored)
    axis = "stages.chunks.matrix={tokens: [128, 256]}"
    command = [sys.executable, "-m", "llmpipe", "run", "spec.yaml", "--set", axis, "--json"]
    result = subprocess.run(command, cwd=tmp_path / "rag-sweep", capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    stages = json.loads(result.stdout)["stages"]
    assert stages["answers"]["metrics"]["documents"] == 159
    for tokens in ("128", "256"):
        found = stages[f"found@tokens={tokens}"]["metrics"]["index.hybrid"]
        assert list(found.values()) == pytest.approx(readme()[tokens], abs=0.02)
    assert stages["best"]["metrics"]["point"] == "tokens=256"
    assert (Path(stages["best"]["outputs"]["winner"]) / "index.json").is_file()
