"""Add a file of an input artifact to an output artifact."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path


def link_or_copy(source: Path, folder: Path, name: str = "") -> Path:
    """Link or copy a file into ``folder``, optionally under another name; return its new path.

    A read-only file from the store is linked, which takes no space. Any other file is copied,
    because its owner may change it and a published artifact must not change.
    """
    target = folder / (name or source.name)
    if not source.stat().st_mode & 0o222:
        with contextlib.suppress(OSError):  # another file system, or one without hard links
            os.link(source, target)
            return target
    shutil.copyfile(source, target)
    return target
