"""Paths as people write them, in a spec, in the environment or on the command line."""

from __future__ import annotations

import os
from pathlib import Path

from llmpipe.gguf_parts import part_of


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

    Links that lead round in a circle stay as they are: no file lies there. A link to a GGUF keeps
    its own name, as in the cache of the Hugging Face hub, where what it leads to has none: by the
    name a GGUF is known, and the parts of a split one are found.
    """
    written = folder / expanded(text)
    path = Path(os.path.realpath(written))
    if written.suffix != ".gguf" or part_of(path.name):
        return path
    return Path(os.path.realpath(written.parent)) / written.name
