"""Take a file over from the artifact that a stage was given into the one that it makes."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path


def link_or_copy(source: Path, folder: Path, name: str = "") -> Path:
    """Put a file into ``folder``, under its own name or another, and give its new path.

    A file of the store, which nobody may write to, is linked and takes no space. Any other is
    copied: its owner may change it, and what we publish must not change with it.
    """
    target = folder / (name or source.name)
    if not source.stat().st_mode & 0o222:
        with contextlib.suppress(OSError):  # another file system, or one without links
            os.link(source, target)
            return target
    shutil.copyfile(source, target)
    return target
