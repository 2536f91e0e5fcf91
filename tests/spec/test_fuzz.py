"""Specs and bytes at random: what a user mistypes is never a traceback, slow, or a lot of memory.

``--long`` goes on for ten minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FUZZER = Path(__file__).parent / "fuzz_specs.py"


@pytest.mark.timeout(1200)
def test_no_spec_crashes_stalls_or_bloats_the_planner(tmp_path: Path, long_form: bool) -> None:
    """Thousands of specs are planned within a second and 100 MB each, and nothing is written."""
    folder = tmp_path / "specs"
    folder.mkdir()
    seconds = "600" if long_form else "4"
    result = subprocess.run(
        [sys.executable, FUZZER, seconds, folder], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-4000:]
    found = json.loads(result.stdout)
    assert found["specs"] > 100, found
    assert {path.name for path in folder.iterdir()} <= {"spec.yaml", "rows.jsonl", ".llmpipe"}
    assert [path.name for path in tmp_path.iterdir()] == ["specs"]
