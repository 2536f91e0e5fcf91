"""Requests for another machine: every input is named by an object of the store.

The local executor reads the user's files in place. An executor on another machine first copies them
into the store with `portable`, then sends the objects that the other store lacks.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec

from llmpipe.errors import StageError
from llmpipe.runner.disk import writing
from llmpipe.runner.request import InputRequest, StageRequest
from llmpipe.runner.statcache import StatCache, content_files
from llmpipe.runner.store import Store
from llmpipe.runner.trees import discard


def portable(request: StageRequest, store: Store) -> StageRequest:
    """Return a request whose inputs hold no path of this machine.

    Raises:
        StageError: A user's file has changed since the plan was made, or cannot be read.
        StoreError: The store cannot be written.
    """
    inputs = {port: _portable(item, store) for port, item in request.inputs.items()}
    return msgspec.structs.replace(request, inputs=inputs)


def objects_of(request: StageRequest) -> set[str]:
    """Return the ids of the objects that a portable request reads."""
    return {item.object for item in request.all_inputs() if item.object is not None}


def _portable(item: InputRequest, store: Store) -> InputRequest:
    base = _portable(item.base, store) if item.base else None
    if item.path is None:
        return msgspec.structs.replace(item, base=base)
    path = Path(item.path)
    scratch = store.tmp / f"shipped-{os.getpid()}"
    try:
        with writing(store.home):
            copy = _copied(path, item.pattern, scratch)
        if StatCache(Path(":memory:")).digest(copy, item.pattern) != item.digest:
            raise StageError(
                f"{item.label} changed after the run began",
                hint="run again to use its current content",
            )
        single = copy.is_file() and len(list(scratch.iterdir())) == 1
        output = store.put(copy if single else scratch, item.type)
    finally:
        discard(scratch)
    file = copy.name if copy != scratch else ""
    return msgspec.structs.replace(item, object=output.object, file=file, path=None, base=base)


def _copied(path: Path, pattern: str | None, scratch: Path) -> Path:
    """Copy the files that a digest covers; return the path of the copy."""
    try:
        found = content_files(path, pattern)
    except OSError as error:
        raise StageError(f"{error.filename} cannot be read: {error.strerror}") from None
    scratch.mkdir(parents=True)
    for name, source in found:
        target = scratch / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return scratch if path.is_dir() else scratch / path.name
