"""Paths as people write them, in a spec, in the environment or on the command line."""

from __future__ import annotations

import os
from pathlib import Path


def is_path(text: str) -> bool:
    """Tell whether a reference is written as a path; no path holds a NUL."""
    begins = text.startswith(("./", "../", "/", "~")) or text in (".", "..")
    return begins and "\0" not in text


def expanded(text: str) -> Path:
    """Give the path that a text means: ``~`` and ``~name`` are homes.

    A home that is nobody's stays as it is written, as in a shell; no file lies there.
    """
    return Path(os.path.expanduser(text))  # noqa: PTH111 (that of pathlib raises)


def local_path(text: str, folder: Path) -> Path:
    """Resolve a path as written in a spec that lies in ``folder``.

    Links that lead round in a circle stay as they are: no file lies there.
    """
    return Path(os.path.realpath(folder / expanded(text)))
