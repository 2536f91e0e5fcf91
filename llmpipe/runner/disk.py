"""Durable writes: whole files, synced folders, and clear errors when a disk is full."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmpipe.errors import StoreError
from llmpipe.runner.process import host

FULL = "the disk is full: free some space and run again; what was finished is kept"

LITTLE = 1 << 16
"""Free bytes below which a disk counts as full."""


def atomic_write(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace a small file: write beside it, rename, and sync if ``durable``."""
    temporary = path.with_name(f".{path.name}.{host()}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def read_json(path: Path) -> Any:
    """Return the data of a JSON file, or None where there is none or it is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


@contextlib.contextmanager
def writing(home: Path) -> Iterator[None]:
    """Turn an error of the operating system on writing into a clear `StoreError`."""
    try:
        yield
    except OSError as error:
        what = error.strerror or str(error)
        if error.filename is not None:
            what += f": {error.filename}"
        raise StoreError(f"{home} cannot be written: {what}", hint=write_hint(error)) from None


def write_hint(error: OSError) -> str | None:
    """Return what to do about a write error."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FULL
    if error.errno == errno.EFBIG:
        return "a file would exceed the size limit of this shell (ulimit -f)"
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP):
        return "a file is in the place of a folder, or a folder in that of a file: move it away"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "give LLMPIPE_HOME a folder that you may write to"
    return None


def room_hint(home: Path) -> str | None:
    """Return a hint if the disk is full, which a failed program may not have noticed."""
    found = os.statvfs(home)
    full = found.f_bavail * found.f_frsize < LITTLE or (found.f_files and not found.f_favail)
    return FULL if full else None


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
