"""A store that several machines share: ``cache: {remote: s3://bucket/folder}``.

Laid out as the local one: ``objects/<id>/`` with the manifest written last, then
``keys/<key>.json``. What comes from there is checked against its digests before it enters the local
store: a partial or corrupt download is refused. Access is by fsspec; credentials come from the environment, in the way
of each service, never from the spec. Who may write there decides what those who read get: a remote
store is to be trusted as the people are who have its keys.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import msgspec

from llmpipe.canonical import digest
from llmpipe.errors import MissingDependencyError, StoreError, UsageError
from llmpipe.runner.statcache import hash_file
from llmpipe.runner.store import KeyRecord, Store, StoredOutput

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
"""The extra that installs what a kind of address needs."""

_ID = re.compile(r"[0-9a-f]{64}")

Count = Callable[[int], None]
"""Called with the bytes of each file that has been moved."""


class Remote:
    """A remote store.

    Raises:
        MissingDependencyError: fsspec or what it needs for this address is not installed.
        UsageError: the address holds a password.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        if urlsplit(address).password:
            raise UsageError(
                "cache.remote holds a password",
                hint="credentials belong into the environment, such as AWS_SECRET_ACCESS_KEY",
            )
        scheme = urlsplit(address).scheme
        try:
            import fsspec

            # listings are not remembered: other machines write there as well
            self._fs, root = fsspec.core.url_to_fs(address, use_listings_cache=False)
        except ImportError as error:
            extra = EXTRAS.get(scheme, "s3")
            hint = f"pip install 'llmpipe[{extra}]'"
            raise MissingDependencyError(f"{address}: {error}", hint=hint) from None
        except ValueError as error:
            raise UsageError(f"cache.remote: {error}") from None
        self._root = root.rstrip("/")

    def fetch(self, key: str, store: Store, count: Count = lambda size: None) -> KeyRecord | None:
        """Bring what was made under a key into the local store; None when it is not there.

        Raises:
            StoreError: it is damaged, or the remote store cannot be reached.
        """
        with self._reaching():
            data = self._read(f"keys/{key}.json")
            if data is None:
                return None
            record = _understood(data, key)
            for output in record.outputs.values():
                if store.lacks(output.object):
                    self._fetch_object(output, store, count)
                if not store.output_path(output).exists():
                    raise _damaged(self.address, output.object, f"it has no {output.path}")
        store.save(record)
        return record

    def push(self, record: KeyRecord, store: Store, count: Count = lambda size: None) -> bool:
        """Bring what was made under a key to the remote store; give whether it was not there yet.

        Raises:
            StoreError: the remote store cannot be written.
        """
        with self._reaching():
            if self._fs.exists(self._path(f"keys/{record.key}.json")):
                return False
            for output in record.outputs.values():
                self._push_object(output.object, store, count)
            self._write(f"keys/{record.key}.json", msgspec.json.encode(record))
        return True

    def _fetch_object(self, output: StoredOutput, store: Store, count: Count) -> None:
        staging = store.tmp / f"{output.object}-{os.getpid()}-fetched"
        shutil.rmtree(staging, ignore_errors=True)
        try:
            (staging / "data").mkdir(parents=True)
            text = self._read(f"objects/{output.object}/manifest.json")
            if text is None:
                raise _damaged(self.address, output.object, "its manifest is missing")
            manifest = json.loads(text)
            if digest({"folder": not output.path, "files": manifest}) != output.object:
                raise _damaged(self.address, output.object, "its manifest is another")
            for entry in manifest:
                self._fetch_file(output.object, entry, staging / "data", count)
            (staging / "manifest.json").write_bytes(text)
            store.adopt(staging, output.object)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _fetch_file(self, object_id: str, entry: Any, folder: Path, count: Count) -> None:
        name = PurePosixPath(entry["path"])
        if name.is_absolute() or ".." in name.parts or not name.parts:
            raise _damaged(self.address, object_id, f"it leads outside: {name}")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        source = self._path(f"objects/{object_id}/data/{name}")
        if not self._fs.exists(source):
            raise _damaged(self.address, object_id, f"{name} is missing")
        self._fs.get_file(source, str(target))
        if hash_file(target) != entry["sha256"]:
            raise _damaged(self.address, object_id, f"{name} has other bytes")
        count(entry["size"])

    def _push_object(self, object_id: str, store: Store, count: Count) -> None:
        manifest = f"objects/{object_id}/manifest.json"
        if self._fs.exists(self._path(manifest)):
            return
        wrong = store.rotten(object_id)
        if wrong:
            raise StoreError(f"{object_id[:16]}: {wrong}", hint="llmpipe cache verify")
        text = (store.objects / object_id / "manifest.json").read_bytes()
        for entry in json.loads(text):
            source = store.objects / object_id / "data" / entry["path"]
            target = self._path(f"objects/{object_id}/data/{entry['path']}")
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._fs.put_file(str(source), target)
            count(entry["size"])
        self._write(manifest, text)

    def _read(self, name: str) -> bytes | None:
        try:
            data: bytes = self._fs.cat_file(self._path(name))
        except FileNotFoundError:
            return None
        return data

    def _write(self, name: str, data: bytes) -> None:
        path = self._path(name)
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(path, data)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turn whatever a service raises into one clear error."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:  # each service has errors of its own, with no common ancestor
            what = str(error).strip() or type(error).__name__
            raise StoreError(
                f"{self.address} cannot be used: {what}",
                hint="check the address, the network and the credentials in the environment",
            ) from None


def _understood(data: bytes, key: str) -> KeyRecord:
    """Decode a record from elsewhere; nothing in it may lead out of the store."""
    record = msgspec.json.decode(data, type=KeyRecord)
    sound = record.key == key == digest(record.ingredients) and all(
        _ID.fullmatch(output.object) and "/" not in output.path and output.path not in (".", "..")
        for output in record.outputs.values()
    )
    if not sound:
        raise StoreError(f"the record of {key[:16]} in the remote store is damaged")
    return record


def _damaged(address: str, object_id: str, what: str) -> StoreError:
    return StoreError(f"{address}: the artifact {object_id[:16]} is damaged: {what}")
