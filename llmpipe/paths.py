"""Paths as people write them, in a spec, in the environment or on the command line."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(text: str) -> Path:
    """Give the path that a text means: ``~`` and ``~name`` are homes.

    A home that is nobody's stays as it is written, as in a shell; no file lies there.
    """
    return Path(os.path.expanduser(text))  # noqa: PTH111 (that of pathlib raises)
