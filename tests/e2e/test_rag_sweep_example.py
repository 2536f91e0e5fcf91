"""The example ``rag-sweep``: the rows that it makes, and the README's figures for one length."""

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


def test_an_answer_ends_where_the_next_chapter_begins() -> None:
    """Or a title of its own level, even one that asks nothing; what stands deeper is part of it."""
    command = [sys.executable, "make_rows.py", "../rag-docs/python-faq"]
    made = subprocess.run(command, cwd=EXAMPLES / "rag-sweep", capture_output=True, text=True)
    answers = {row["question"]: row["answer"] for row in map(json.loads, made.stdout.splitlines())}
    assert len(answers) == 159
    assert not [q for q, answer in answers.items() if re.search(r"^===", answer, re.MULTILINE)]
    threads = "Can't we get rid of the Global Interpreter Lock?"
    assert answers[threads].endswith("each interpreter in a separate process?")
    assert "How do you remove multiple items" not in "".join(answers.values())


def test_the_sweep_finds_what_the_readme_says(tmp_path: Path) -> None:
    """For one length, within a few questions: int8 products differ between processors."""
    for name in ("rag-sweep", "rag-docs"):
        ignored = shutil.ignore_patterns(".llmpipe", "*.lock.yaml")
        shutil.copytree(EXAMPLES / name, tmp_path / name, ignore=ignored)
    axis = "stages.chunks.matrix={tokens: [128]}"
    command = [sys.executable, "-m", "llmpipe", "run", "spec.yaml", "--set", axis, "--json"]
    result = subprocess.run(command, cwd=tmp_path / "rag-sweep", capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    stages = json.loads(result.stdout)["stages"]
    assert stages["answers"]["metrics"]["documents"] == 159
    found = stages["found@tokens=128"]["metrics"]["index.hybrid"]
    assert list(found.values()) == pytest.approx(readme()["128"], abs=0.02)
    assert stages["best"]["metrics"]["point"] == "tokens=128"
    assert (Path(stages["best"]["outputs"]["winner"]) / "index.json").is_file()
