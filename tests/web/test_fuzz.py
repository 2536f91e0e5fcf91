"""Random requests and bytes to both services: no traceback, no delay for others, no growth.

``--long`` continues for ten minutes each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

FUZZER = Path(__file__).parent / "fuzz_requests.py"
TESTS = Path(__file__).parents[1]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("service", ["rag", "model"])
def test_no_request_harms_a_service(
    tmp_path: Path, long_form: bool, service: str, smollm2_gguf: Path
) -> None:
    """Each is answered or hung up on, and meanwhile sound ones are answered within a second."""
    what = "rag" if service == "rag" else str(smollm2_gguf)
    result = subprocess.run(
        [sys.executable, FUZZER, "600" if long_form else "8", tmp_path, what],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(TESTS), *filter(None, sys.path)))},
    )
    assert result.returncode == 0, result.stderr[-8000:]
    found = json.loads(result.stdout)
    assert found["sent"] > 20, found
    assert {"200", "400"} <= found["statuses"].keys(), found
