"""The notebook of the examples runs from top to bottom, in a kernel as Jupyter starts it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent.parent / "examples" / "notebook"


@pytest.mark.heavy
def test_every_cell_runs_and_shows_what_it_promises(tmp_path: Path) -> None:
    """Tables of the plan and of the run, rows, an answer, a reply; and nothing stays behind."""
    import nbformat
    from nbclient import NotebookClient

    folder = shutil.copytree(FOLDER, tmp_path / "notebook", ignore=shutil.ignore_patterns(".*"))
    notebook = nbformat.read(folder / "tour.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(folder)}})
    client.execute()
    shown = [_shown(cell) for cell in notebook.cells if cell.cell_type == "code"]
    stages, plan, run, again, rows, paths, changed, answer, reply, wrong, closed = shown
    assert "'answers'" in stages
    assert plan.count("it has not run yet") == 3
    assert run.count("✓ done") == 2 * 7  # the progress that stays, and the run itself
    assert "running" not in run
    assert "7 cached" in again
    assert "report.html" in again
    assert "<td" in rows
    assert "'eval': 50" in paths
    assert "tokens: 220 → 100" in changed
    assert "permits.md: " in answer
    assert reply.strip()
    assert "did you mean 'split'?" in wrong
    assert closed == ""


def _shown(cell: Any) -> str:
    """Return what a cell shows: its table where it has one, else its text."""
    found = []
    for output in cell.outputs:
        assert output.output_type != "error", output
        assert output.get("name") != "stderr", output.text
        data = output.get("data", {})
        found.append(output.get("text") or data.get("text/html") or data.get("text/plain") or "")
    return "\n".join(found)


def test_the_notebook_holds_no_output() -> None:
    """What it shows depends on the machine: it is committed as it is written."""
    import json

    for cell in json.loads((FOLDER / "tour.ipynb").read_text("utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
