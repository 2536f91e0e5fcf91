"""A store that several machines share: ``cache: {remote: s3://bucket/folder}``.

It has the layout of the local store: ``format`` is written first, then ``objects/<id>/`` with the
manifest last, then ``keys/<key>.json``. Everything that is fetched is checked against its digests
before it enters the local store, and enters as a whole. Access is by fsspec. Credentials come from
the environment, as each service expects, never from the spec. Everyone who can write to a remote
store decides what its readers get: trust it as much as you trust these people.
"""

from __future__ import annotations

import errno
import os
import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import msgspec

from llmpipe.canonical import digest
from llmpipe.errors import LlmpipeError, MissingDependencyError, StoreError
from llmpipe.needs import Need, install_lines, is_here, packages, with_mends
from llmpipe.runner.disk import FULL, atomic_write
from llmpipe.runner.records import (
    Entry,
    KeyRecord,
    StoredOutput,
    decode_record,
    describes,
    encode_record,
)
from llmpipe.runner.statcache import hash_file
from llmpipe.runner.store import Store
from llmpipe.runner.trees import discard

FORMAT = 1

DRIVERS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
"""The package by which fsspec reaches each kind of address.

All are object stores: a file appears as a whole, and there are no folders to create.
"""

FIRST_ANSWER = 20.0
"""Seconds within which a remote store must answer the first request."""

_ID = re.compile(r"[0-9a-f]{64}")
_SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|_KEY|CREDENTIAL", re.IGNORECASE)
_HOLDER = re.compile(r"(?<=//)[^/@\s]+@")

Count = Callable[[int], None]
"""Called with the bytes of each file that was moved."""


def complaint(address: str) -> str | None:
    """Return why an address cannot be a remote store, without a password that it may hold."""
    try:
        password = urlsplit(address).password
    except ValueError:
        return "this is not an address"
    if password is not None:
        return "a password does not belong here"
    return "one address is needed, not a chain of them" if "::" in address else None


def address_needs(address: str) -> tuple[Need, ...]:
    """Return the packages that reach an address. A run can do without them."""
    driver = DRIVERS.get(urlsplit(address).scheme)
    if driver is None:
        return (Need("fsspec", is_here("fsspec"), "pip install fsspec", advisory=True),)
    return tuple(replace(need, advisory=True) for need in packages("fsspec", driver))


class Remote:
    """A remote store.

    Raises:
        MissingDependencyError: fsspec, or a package for this address, is not installed.
        StoreError: No package can reach such an address.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        scheme = urlsplit(address).scheme
        with self._reaching():
            try:
                import fsspec

                # no caching of listings: other machines write there as well
                self._fs, root = fsspec.core.url_to_fs(address, use_listings_cache=False)
            except ImportError as error:
                lacking = (replace(need, here=False) for need in address_needs(address))
                hint = "\n".join(install_lines(with_mends(lacking)))
                raise MissingDependencyError(f"{address}: {error}", hint=hint) from None
        self._root = root.rstrip("/")
        self._has_folders = scheme not in DRIVERS
        self._is_local = scheme in ("", "file", "local")

    def reach(self, *, begin: bool = False) -> None:
        """Check that a remote store exists, or ``begin`` one; the wait is limited.

        Raises:
            StoreError: It cannot be reached, has a newer format, or does not exist yet.
        """
        with self._reaching():
            found = _within(FIRST_ANSWER, lambda: self._read("format"))
            if found is None and begin:
                self._write("format", f"{FORMAT}\n".encode())
        if found is None and not begin:
            raise StoreError(f"{self.address}: nothing has been pushed there yet")
        if found is not None and found.strip() != str(FORMAT).encode():
            shown = found[:20].decode("utf-8", "replace").strip()
            raise StoreError(
                f"{self.address} is of format {shown!r}; this llmpipe knows format {FORMAT}",
                hint="use the newer llmpipe, or another address",
            )

    def fetch(
        self,
        key: str,
        types: Mapping[str, str],
        store: Store,
        count: Count = lambda size: None,
    ) -> KeyRecord | None:
        """Fetch what was made under a key into the local store; return None if it is not there.

        Args:
            key: The key.
            types: The outputs that must be among what was made, and their types.
            store: The local store.
            count: Called as files arrive.

        Raises:
            StoreError: It is damaged, or the remote store cannot be reached.
        """
        with self._reaching():
            data = self._read(f"keys/{key}.json")
            if data is None:
                return None
            record = _sound(data, key)
            made = {n: o.type for n, o in record.outputs.items()} if record else {}
            if record is None or any(
                made.get(name, type_) != type_ for name, type_ in types.items()
            ):
                raise self._unusable(key, "is damaged")
            if lacking := sorted(types.keys() - made.keys()):
                raise self._unusable(key, f"lacks {', '.join(lacking)}")
            for output in record.outputs.values():
                self._fetch_object(output, store, count)
        store.save(record)
        return record

    def _unusable(self, key: str, why: str) -> StoreError:
        return StoreError(
            f"{self.address}: the record of {key[:16]} {why}",
            hint=f"remove keys/{key}.json there, and push it from a machine that has it",
        )

    def push(self, record: KeyRecord, store: Store, count: Count = lambda size: None) -> bool:
        """Push what was made under a key to the remote store; return whether anything was sent.

        If another machine has pushed its own result, that stays. An incomplete one is completed.

        Raises:
            StoreError: The local artifact is damaged, or the remote store cannot be written.
        """
        with self._reaching():
            name = f"keys/{record.key}.json"
            held = _sound(self._read(name) or b"", record.key)
            if held is not None and held.outputs != record.outputs:
                return False
            moved = [
                self._push_object(output.object, store, count) for output in record.outputs.values()
            ]
            if held is None:
                self._write(name, encode_record(record).encode())
        return held is None or any(moved)

    def _fetch_object(self, output: StoredOutput, store: Store, count: Count) -> None:
        """Fetch one object. It enters the store after all of it was checked."""
        if not store.lacks(output.object):
            if not store.holds(output):
                raise self._damaged(output.object, "its record and its manifest disagree")
            return
        found = self._read(f"objects/{output.object}/manifest.json")
        if found is None:
            raise self._damaged(output.object, "its manifest is missing")
        files = _files(found, output)
        if files is None:
            raise self._damaged(output.object, "its manifest has changed")
        staging = store.tmp / f"{output.object}-{os.getpid()}-fetched"
        try:
            (staging / "data").mkdir(parents=True)
            for entry in files:
                self._fetch_file(output.object, entry, staging / "data", count)
            (staging / "manifest.json").write_bytes(found)
            store.adopt(staging, output.object)
        finally:
            discard(staging)

    def _fetch_file(self, object_id: str, entry: Entry, folder: Path, count: Count) -> None:
        if _leads_outside(entry.path):
            raise self._damaged(object_id, f"{entry.path!r} leads outside of it")
        target = folder / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._fs.get_file(self._path(f"objects/{object_id}/data/{entry.path}"), str(target))
        except FileNotFoundError:
            raise self._damaged(object_id, f"{entry.path} is missing") from None
        size = target.stat().st_size
        if size != entry.size:
            raise self._damaged(object_id, f"{entry.path} has {size} bytes of {entry.size}")
        if hash_file(target) != entry.sha256:
            raise self._damaged(object_id, f"{entry.path} has other bytes")
        count(size)

    def _push_object(self, object_id: str, store: Store, count: Count) -> bool:
        """Push the missing parts of an object, the manifest last; return whether there were any."""
        manifest = store.objects / object_id / "manifest.json"
        there = self._sizes(f"objects/{object_id}/data")
        files = store.manifest(object_id)
        missing = [entry for entry in files if there.get(entry.path) != entry.size]
        text = manifest.read_bytes()
        if not missing and self._read(f"objects/{object_id}/manifest.json") == text:
            return False
        wrong = store.rotten(object_id)
        if wrong:
            what = f"the artifact {object_id[:16]} is damaged here: {wrong}"
            raise StoreError(what, hint="remove it with: llmpipe cache verify SPEC")
        for entry in missing:
            target = self._place(f"objects/{object_id}/data/{entry.path}")
            self._fs.put_file(str(manifest.parent / "data" / entry.path), target)
            count(entry.size)
        self._write(f"objects/{object_id}/manifest.json", text)
        return True

    def _sizes(self, name: str) -> dict[str, int]:
        """Return the sizes of the files below a folder, by their relative names."""
        folder = self._path(name)
        found: Mapping[str, Mapping[str, Any]] = self._fs.find(folder, detail=True)
        return {path[len(folder) + 1 :]: about["size"] for path, about in found.items()}

    def _read(self, name: str) -> bytes | None:
        try:
            data: bytes = self._fs.cat_file(self._path(name))
        except FileNotFoundError:
            return None
        return data

    def _write(self, name: str, data: bytes) -> None:
        """Write a small file so that it appears as a whole."""
        path = self._place(name)
        if self._is_local:
            atomic_write(Path(path), data.decode())
        else:
            self._fs.pipe_file(path, data)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _place(self, name: str) -> str:
        """Return the path for writing a file; its folder exists.

        Object stores have no folders: creating one could create a bucket instead.
        """
        path = self._path(name)
        if self._has_folders:
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        return path

    def _damaged(self, object_id: str, what: str) -> StoreError:
        return StoreError(
            f"{self.address}: the artifact {object_id[:16]} is damaged: {what}",
            hint=f"remove objects/{object_id} there, and push it from a machine that has it",
        )

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turn every error of a service into one clear error."""
        try:
            yield
        except LlmpipeError:
            raise
        except Exception as error:  # the services' errors have no common base class
            what = _without_secrets(str(error).strip() or type(error).__name__)
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            hint = "check the address, the network and the credentials in the environment"
            raise StoreError(
                f"{self.address} cannot be used: {what}", hint=FULL if full else hint
            ) from None


def _sound(data: bytes, key: str) -> KeyRecord | None:
    """Decode a foreign record; return None if it is damaged or belongs to another key.

    Nothing in it may lead out of the store.
    """
    try:
        record = decode_record(data, key)
        sound = digest(record.ingredients) == key
    except ValueError:
        return None
    outputs = record.outputs.values()
    sound = sound and all(
        _ID.fullmatch(output.object) and not (output.path and _leads_outside(output.path))
        for output in outputs
    )
    return record if sound else None


def _files(text: bytes, output: StoredOutput) -> list[Entry] | None:
    """Decode the manifest of an object; return None if it is not that of the output."""
    try:
        files = msgspec.json.decode(text, type=list[Entry])
    except msgspec.MsgspecError:
        return None
    return files if describes(output, files) else None


def _leads_outside(path: str) -> bool:
    """Return whether a foreign name is anything but a plain path downward."""
    plain = PurePosixPath(path)
    return plain.is_absolute() or ".." in plain.parts or str(plain) != path or path == "."


def _within(seconds: float, ask: Callable[[], bytes | None]) -> bytes | None:
    """Limit the wait for an answer: a client may retry for an hour before it gives up."""
    answers: queue.SimpleQueue[tuple[bytes | None, Exception | None]] = queue.SimpleQueue()

    def wait() -> None:
        try:
            answers.put((ask(), None))
        except Exception as error:
            answers.put((None, error))

    threading.Thread(target=wait, daemon=True).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"there was no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return answer


def _without_secrets(text: str) -> str:
    """Remove secrets from the message of a service."""
    values = (value for name, value in os.environ.items() if _SECRET.search(name))
    for value in sorted((value for value in values if len(value) >= 4), key=len, reverse=True):
        text = text.replace(value, "[redacted]")
    return _HOLDER.sub("[redacted]@", text)
