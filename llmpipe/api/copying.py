"""Copy an artifact out of the store, as a whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path

from llmpipe.errors import StoreError, UsageError
from llmpipe.runner.statcache import folder_files


def copy_artifact(source: Path, target: Path) -> None:
    """Copy a file or folder; the copy belongs to the user and may be written to.

    Raises:
        UsageError: the target exists already.
        StoreError: it cannot be written.
    """
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already", hint="name another path, or remove it first")
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            partial.mkdir()
            for name, path in folder_files(source):
                _copy_file(path, partial / name)
        else:
            _copy_file(source, partial)
        partial.rename(target)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "the disk is full" if full else None
        message = f"{target} cannot be written: {error.strerror or error}"
        raise StoreError(message, hint=hint) from None
    finally:  # an interrupt as well leaves nothing half-written
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            partial.unlink()


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    target.chmod(target.stat().st_mode | stat.S_IWUSR)
