"""The benchmark of the client of endpoints runs, and gets every reply once from a faulty endpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.heavy, pytest.mark.slow]


def test_every_reply_comes_once(tmp_path: Path) -> None:
    """Nothing is lost or doubled where a tenth of the requests fail; asked again, nothing is sent."""
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.generate", "--concurrency", "8", "--any-speed"]
    subprocess.run(
        [*command, "--requests", "200", "--json", str(figures)],
        cwd=Path(__file__).parents[2],
        check=True,
    )
    (result,) = json.loads(figures.read_text())
    assert (result["lost"], result["duplicated"], result["sent_again"]) == (0, 0, 0)
    assert result["outcomes"].keys() == {"429", "500", "hang", "malformed", "reply"}
