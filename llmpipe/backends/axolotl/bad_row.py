"""Say which row a training failed at: Axolotl's own errors about rows do not.

The rows are prepared again, one by one, in a child process
(`llmpipe.backends.axolotl.plugins.axolotl_labels.bad_row`). This costs as much as preparing them
did, and happens only after a training has failed before its first step.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

FILE = "bad_row.json"
"""The child's answer, beside the configuration."""


class BadRow(msgspec.Struct, frozen=True):
    """The first row that Axolotl cannot prepare."""

    split: str
    """The key of the configuration that names its file: datasets or test_datasets."""
    row: int
    """Its number in the file, from 1."""
    error: str


def find_bad_row(config: Path, env: Mapping[str, str], cwd: Path) -> BadRow | None:
    """Return the first row of a configuration that cannot be prepared; None if all can."""
    answer = config.with_name(FILE)
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-m", "axolotl_labels.bad_row", str(config), str(answer)]
    subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    try:
        return msgspec.convert(json.loads(answer.read_bytes()), BadRow)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None
