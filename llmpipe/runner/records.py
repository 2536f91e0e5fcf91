"""What the store remembers of artifacts and of the stages that made them, as data.

An object is a folder of files; its id is the digest of its manifest, the list of their names,
digests and sizes. A key's record names the objects that a stage made under it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from llmpipe.canonical import digest
from llmpipe.runner.statcache import manifest_digest


class StoredOutput(msgspec.Struct, frozen=True):
    """One output of a stage as the store keeps it. ``digest`` is that of its content alone."""

    type: str
    object: str
    path: str
    """The file's name inside the object; empty when the object's folder is the artifact."""
    digest: str
    size: int


class Entry(msgspec.Struct, frozen=True):
    """One file of an object, as the object's manifest names it."""

    path: str
    sha256: str
    size: int


class KeyRecord(msgspec.Struct, frozen=True):
    """What a stage made under one cache key, and from what."""

    key: str
    kind: str
    ingredients: dict[str, Any]
    outputs: dict[str, StoredOutput]
    metrics: dict[str, Any]
    summary: str
    seconds: float
    created: str
    kept_from: str | None = None
    """The key that it was really made under, where the user said to keep it for this one."""


def stored_output(type_: str, files: Sequence[Entry], path: str) -> StoredOutput:
    """Give what to remember of an artifact: the file ``path``, or a folder where it is empty."""
    whole = manifest_digest((entry.path, entry.sha256) for entry in files)
    return StoredOutput(
        type=type_,
        object=stored_id(files, folder=not path),
        path=path,
        digest=files[0].sha256 if path else whole,
        size=sum(entry.size for entry in files),
    )


def stored_id(files: Sequence[Entry], *, folder: bool) -> str:
    """Give the id of the object that is made of these files."""
    return digest({"folder": folder, "files": msgspec.to_builtins(files)})
