"""Random damage to the files of a store: a clear error, or it is made again, never a traceback.

``--long`` continues for twenty minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZER = Path(__file__).parent / "fuzz_records.py"
TESTS = Path(__file__).parents[1]


@pytest.mark.heavy
@pytest.mark.timeout(3600)
def test_no_damage_is_silent_or_a_traceback(tmp_path: Path, long_form: bool) -> None:
    """Every command says what is wrong or goes on; what a run calls done is what it was."""
    result = subprocess.run(
        [sys.executable, FUZZER, "1200" if long_form else "8", tmp_path],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(TESTS), *filter(None, sys.path)))},
    )
    assert result.returncode == 0, result.stderr[-8000:]
    assert sum(json.loads(result.stdout).values()) >= 10
