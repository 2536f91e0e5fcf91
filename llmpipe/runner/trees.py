"""Folders of any depth: what is in them, whether a store can keep it, and their removal.

Nothing here recurses, so that no folder is too deep for Python's stack.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from llmpipe.errors import StageError
from llmpipe.patterns import SPECIAL


def entries(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    """Yield all that is below a folder; links are not followed.

    Raises:
        OSError: a folder cannot be read.
    """
    waiting = [os.fspath(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as found:
            for entry in found:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def take_over(output: Path, name: str) -> None:
    """Make an output consist of files of its own, which nobody changes from outside.

    A file that has other names too (hard links) is replaced by a copy. Links within the output are
    kept.

    Args:
        output: a file or folder that a stage has made.
        name: what the stage calls it.

    Raises:
        StageError: it holds a pipe, socket or device, or a link that leads out of it or nowhere.
    """
    top = output.resolve()
    found = [(output, output.lstat())]
    if output.is_dir() and not output.is_symlink():
        found += [(Path(e.path), e.stat(follow_symlinks=False)) for e in entries(output)]
    for path, seen in found:
        if kind := SPECIAL.get(stat.S_IFMT(seen.st_mode)):
            raise StageError(
                f"the output {name!r} holds {kind}: {path}",
                hint="only files, folders and links can be kept: remove it at the stage's end",
            )
        if stat.S_ISLNK(seen.st_mode):
            _check_link(path, top, name)
        elif stat.S_ISREG(seen.st_mode) and seen.st_nlink > 1:
            _replace_by_copy(path)


def _check_link(link: Path, top: Path, name: str) -> None:
    target = link.resolve()
    if link.readlink().is_absolute() or not target.is_relative_to(top) or link == top:
        raise StageError(f"the output {name!r} holds a link that leads out of it: {link}")
    if not target.exists():
        raise StageError(
            f"the output {name!r} holds a link that leads nowhere: {link} → {link.readlink()}",
            hint="editors leave such links as locks: remove it at the stage's end",
        )


def _replace_by_copy(path: Path) -> None:
    copy = path.with_name(f".{path.name[:100]}.{os.getpid()}")
    shutil.copy2(path, copy)
    copy.replace(path)


def remove_tree(folder: Path) -> None:
    """Remove a file, or a folder and all below it, also what may not be written to.

    Folders inside are moved up beside it first, so that no path grows too long for the system.

    Raises:
        OSError: something cannot be removed.
    """
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink()
        return
    waiting, moved = [folder], 0
    while waiting:
        inner = waiting.pop()
        with contextlib.suppress(PermissionError):
            inner.chmod(0o700)
        with os.scandir(inner) as found:
            below = list(found)
        for entry in below:
            if not entry.is_dir(follow_symlinks=False):
                Path(entry.path).unlink()
                continue
            moved += 1
            beside = folder.with_name(f"{folder.name[:100]}.{os.getpid()}.{moved}")
            with contextlib.suppress(PermissionError):
                Path(entry.path).chmod(0o700)  # else it may not be moved
            Path(entry.path).rename(beside)
            waiting.append(beside)
        inner.rmdir()


def discard(folder: Path) -> None:
    """Remove a folder as far as it can be; what is left is of no value and harms nobody."""
    with contextlib.suppress(OSError):
        remove_tree(folder)
