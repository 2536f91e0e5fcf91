"""Folders of any depth: list them, check whether a store can keep them, remove them.

Nothing here recurses, so no folder is too deep for Python's stack.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from llmpipe.errors import StageError, is_text
from llmpipe.patterns import SPECIAL


def entries(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    """Yield everything below a folder; links are not followed.

    Raises:
        OSError: A folder cannot be read.
    """
    waiting = [os.fspath(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as found:
            for entry in found:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def take_over(output: Path, name: str) -> None:
    """Make sure that an output consists of its own files, which nothing changes from outside.

    A file with other names (hard links) is replaced by a copy. Links within the output are kept.

    Args:
        output: A file or folder that a stage has made.
        name: The stage's name for it.

    Raises:
        StageError: It is a link, or it holds a pipe, socket or device, a link that is broken or
            leads out, or a name that is not text.
    """
    if output.is_symlink():
        raise StageError(
            f"the output {name!r} is a link, which leads out of it: {output}",
            hint="make it a regular file or folder: copy or move the target of the link there",
        )
    top = output.resolve()
    found = [(output, output.lstat())]
    if output.is_dir():
        found += [(Path(e.path), e.stat(follow_symlinks=False)) for e in entries(output)]
    for path, seen in found:
        if not is_text(path.name):
            message = f"the output {name!r} holds a file whose name is not UTF-8 text: {path.name}"
            raise StageError(message, hint="rename it before the stage ends")
        if kind := SPECIAL.get(stat.S_IFMT(seen.st_mode)):
            raise StageError(
                f"the output {name!r} holds {kind}: {path}",
                hint="only files, folders and links can be kept: remove it before the stage ends",
            )
        if stat.S_ISLNK(seen.st_mode):
            _check_link(path, top, name)
        elif stat.S_ISREG(seen.st_mode) and seen.st_nlink > 1:
            _replace_by_copy(path)


def _check_link(link: Path, top: Path, name: str) -> None:
    target = Path(os.path.realpath(link))  # unlike Path.resolve, accepts links in a circle
    if link.readlink().is_absolute() or not target.is_relative_to(top):
        raise StageError(f"the output {name!r} holds a link that leads out of it: {link}")
    if not link.exists():
        raise StageError(
            f"the output {name!r} holds a broken link: {link} → {link.readlink()}",
            hint="editors leave such links as locks: remove it before the stage ends",
        )


def _replace_by_copy(path: Path) -> None:
    descriptor, copy = tempfile.mkstemp(prefix=".", dir=path.parent)
    os.close(descriptor)
    shutil.copy2(path, copy)
    Path(copy).replace(path)


def remove_tree(folder: Path) -> None:
    """Remove a file, or a folder and all below it, even if it is read-only.

    Subfolders are moved up first, into a folder next to it, so that no path grows too long for the
    system. A folder that is replaced by a link in the meantime is not followed.

    Raises:
        OSError: Something cannot be removed.
    """
    if not stat.S_ISDIR(folder.lstat().st_mode):
        folder.unlink()
        return
    holding, moved = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent)), 0
    waiting = [folder]
    try:
        while waiting:
            inner = waiting.pop()
            with _opened(inner) as descriptor:
                with os.scandir(descriptor) as found:
                    below = list(found)
                for entry in below:
                    if not entry.is_dir(follow_symlinks=False):
                        os.unlink(entry.name, dir_fd=descriptor)
                        continue
                    moved += 1
                    waiting.append(holding / str(moved))
                    with _opened(entry.name, descriptor):  # else it may not be moved
                        os.rename(entry.name, waiting[-1], src_dir_fd=descriptor)
            inner.rmdir()
    finally:
        with contextlib.suppress(OSError):
            holding.rmdir()


@contextlib.contextmanager
def _opened(folder: Path | str, within: int | None = None) -> Iterator[int]:
    """Open a folder, but not a link to one, and make it writable."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        descriptor = os.open(folder, flags, dir_fd=within)
    except PermissionError:
        seen = os.stat(folder, dir_fd=within, follow_symlinks=False)
        if not stat.S_ISDIR(seen.st_mode):
            raise
        os.chmod(folder, 0o700, dir_fd=within)
        descriptor = os.open(folder, flags, dir_fd=within)
    try:
        with contextlib.suppress(PermissionError):
            os.fchmod(descriptor, 0o700)
        yield descriptor
    finally:
        os.close(descriptor)


def discard(folder: Path) -> None:
    """Remove a folder as far as possible; leftovers do no harm."""
    with contextlib.suppress(OSError):
        remove_tree(folder)
