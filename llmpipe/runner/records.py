"""The records of artifacts and of the stages that made them.

An object is a folder of files. Its id is the digest of its manifest, which lists the names, digests
and sizes of the files. The record of a key names the objects that a stage made under it. It is
sealed with the digest of its other fields.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypedDict

import msgspec

from llmpipe.canonical import digest
from llmpipe.runner.statcache import manifest_digest


class StoredOutput(msgspec.Struct, frozen=True):
    """An output of a stage in the store. ``digest`` covers its content only."""

    type: str
    object: str
    path: str
    """The file's name inside the object; empty if the object's folder is the artifact."""
    digest: str
    size: int


class Entry(msgspec.Struct, frozen=True):
    """A file of an object, as the manifest lists it."""

    path: str
    sha256: str
    size: int


class KeyInputs(TypedDict):
    """The ingredients of a stage: see `llmpipe.runner.fingerprint`."""

    record: int
    kind: str
    version: int
    config: dict[str, Any]
    inputs: dict[str, dict[str, Any]]
    tools: dict[str, str | None]


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
    """The key that it was made under, if the user asked to keep it for this one."""
    read: dict[str, int] = {}
    """The bytes of each input, for estimates. Early records do not have it."""
    seal: str | None = None
    """The digest of the other fields when they were written; None in records older than seals."""


def encode_record(record: KeyRecord) -> str:
    """Return the sealed text of a record, in a readable layout."""
    data = msgspec.to_builtins(record)
    data["seal"] = _seal(data)
    return msgspec.json.format(msgspec.json.encode(data), indent=1).decode() + "\n"


def decode_record(text: bytes, key: str) -> KeyRecord:
    """Return the record of a key from its text.

    A record without a seal is accepted if its key is the digest of its ingredients.

    Raises:
        ValueError: It is damaged, or belongs to another key; the message says which.
    """
    try:
        data = msgspec.json.decode(text, type=dict[str, Any])
        record = msgspec.convert(data, KeyRecord)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"it is not a record: {error}") from None
    if record.key != key:
        raise ValueError("it is the record of another key")
    if record.seal is None and digest(record.ingredients) != key:
        raise ValueError("its ingredients are not those of its key")
    if record.seal is not None and record.seal != _seal(data):
        raise ValueError("it has changed since it was written")
    return record


def _seal(data: dict[str, Any]) -> str:
    rest = {name: value for name, value in data.items() if name != "seal"}
    return hashlib.sha256(msgspec.json.encode(rest, order="sorted")).hexdigest()


def stored_output(type_: str, files: Sequence[Entry], path: str) -> StoredOutput:
    """Return the record of an artifact: of the file ``path``, or of the folder if it is empty."""
    whole = manifest_digest((entry.path, entry.sha256) for entry in files)
    return StoredOutput(
        type=type_,
        object=stored_id(files, folder=not path),
        path=path,
        digest=files[0].sha256 if path else whole,
        size=sum(entry.size for entry in files),
    )


def stored_id(files: Sequence[Entry], *, folder: bool) -> str:
    """Return the id of the object that consists of these files."""
    return digest({"folder": folder, "files": msgspec.to_builtins(files)})


def is_manifest_of(files: Sequence[Entry], object_id: str) -> bool:
    """Return whether an object's id stands for these files."""
    shapes = (False, True) if len(files) == 1 else (True,)
    return any(stored_id(files, folder=folder) == object_id for folder in shapes)


def describes(output: StoredOutput, files: Sequence[Entry]) -> bool:
    """Return whether the record of an artifact fits these files."""
    single_as_said = not output.path or [entry.path for entry in files] == [output.path]
    return single_as_said and stored_output(output.type, files, output.path) == output
