"""The how-to of curating rows: its files and commands give what the page shows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "how-to" / "curate-data.md").read_text("utf-8")


@pytest.mark.slow
def test_the_page_as_it_is_written(tmp_path: Path) -> None:
    """The files, the two commands, the summary and the reject that it shows."""
    for name in ("rows.jsonl", "test.jsonl", "spec.yaml"):
        block = re.search(rf"^`{name}`.*?\n```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
        assert block
        (tmp_path / name).write_text(block[1], "utf-8")
    commands = re.findall(r"^(llmpipe .*)$", PAGE, re.MULTILINE)
    assert len(commands) == 2
    said = ""
    for command in commands:
        line = [sys.executable, "-m", *command.split()]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
    summary = re.search(r"^```\n(.*)\n```", PAGE, re.MULTILINE)
    shown = re.search(r'^\{"source".*$', PAGE, re.MULTILINE)
    assert summary
    assert shown
    assert summary[1] in said
    rejects = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert len(rejects) == 3
    assert json.loads(shown[0]) in [{k: v for k, v in r.items() if k != "row"} for r in rejects]
