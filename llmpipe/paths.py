"""Paths as users write them: in a spec, in the environment or on the command line."""

from __future__ import annotations

import os
from pathlib import Path

from llmpipe.gguf_parts import part_of


def is_path(text: str) -> bool:
    """Return whether a reference is written as a path. A path cannot contain NUL."""
    begins = text.startswith(("./", "../", "/", "~")) or text in (".", "..")
    return begins and "\0" not in text


def expanded(text: str) -> Path:
    """Return a path with ``~`` and ``~name`` replaced by home folders.

    As in a shell, a ``~name`` without such a user stays as it is written.
    """
    return Path(os.path.expanduser(text))  # noqa: PTH111 (that of pathlib raises)


def local_path(text: str, folder: Path) -> Path:
    """Resolve a path as written in a spec that lies in ``folder``.

    Links in a circle are not resolved. A link to a GGUF keeps its own name, because the name shows
    that it is a GGUF and leads to the parts of a split one. In the cache of the Hugging Face hub
    only the links have such names.
    """
    written = folder / expanded(text)
    path = Path(os.path.realpath(written))
    if written.suffix != ".gguf" or part_of(path.name):
        return path
    return Path(os.path.realpath(written.parent)) / written.name
