"""The journal of endpoint replies, so that no request is sent, or paid for, twice.

It is one file, ``replies.jsonl``, in a folder that all stages and runs share. Each line has the
SHA-256 of a request and its reply. Lines are only appended, each in one write under a file lock, so
several processes can write at once. A process killed during a write leaves a torn line. The next
writer ends that line, and readers skip it.

Entries never expire, and the journal does not look into replies.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from llmpipe.errors import StoreError

FILE = "replies.jsonl"


def request_key(request: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of a request's canonical JSON.

    The request must contain everything that shapes the reply: teacher, messages, decoding, schema,
    draw. A value that is not JSON raises `TypeError` or `ValueError`.
    """
    text = json.dumps(
        request, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Journal:
    """Replies by request key. Safe to use from several threads and several processes.

    Only the positions of the replies are in memory, not the replies. ``resample`` ignores existing
    replies, so that all are requested and journaled again. Use it as a context manager.

    Raises:
        StoreError: The folder cannot be written, the disk is full, or a reply cannot be read.
    """

    def __init__(self, folder: Path, *, resample: bool = False) -> None:
        self.path = folder / FILE
        self.reused = 0
        """The number of returned replies that were journaled before it was opened."""
        self._places: dict[str, tuple[int, int]] = {}
        self._read_to = 0
        self._lock = threading.Lock()
        with self._explained():
            folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = self.path.open("a+b", buffering=0)
            self._held = os.fstat(self._file.fileno()).st_size
            if resample:
                self._read_to = self._held

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def get(self, key: str, shape: Any = Any, *, counted: bool = True) -> Any | None:
        """Return the reply journaled under ``key`` by any process, or None.

        ``shape`` is its type. A damaged entry has another one, and does not count. What is not
        ``counted`` is no reply, such as a note.
        """
        with self._lock, self._explained():
            if key not in self._places:
                self._catch_up()
            place = self._places.get(key)
            if place is None:
                return None
            try:
                entry = msgspec.convert(_decode(self._pread(*place)), dict[str, Any])
                reply = msgspec.convert(entry.get("reply"), shape)
            except msgspec.ValidationError:
                del self._places[key]  # a later line may hold it
                return None
            self.reused += counted and place[0] < self._held
            return reply

    def put(self, key: str, reply: Any, *, synced: bool = True) -> None:
        """Add a reply; it is on disk when this returns, if it is ``synced``."""
        line = json.dumps({"key": key, "reply": reply}, ensure_ascii=False).encode(
            "utf-8", "surrogatepass"
        )
        with self._lock, self._explained():
            self._places.pop(key, None)  # the new line is the one to read
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                end = os.fstat(self._file.fileno()).st_size
                torn = end > 0 and self._pread(end - 1, 1) != b"\n"
                self._write((b"\n" if torn else b"") + line + b"\n")
                if synced:
                    os.fsync(self._file.fileno())
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _write(self, data: bytes) -> None:
        """Write all of ``data``; a nearly full disk accepts a part before it reports an error."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._file.fileno(), view) :]

    def _catch_up(self) -> None:
        """Read the lines that this or other processes have added since the last call."""
        start = self._read_to
        size = os.fstat(self._file.fileno()).st_size
        if size <= start:
            return
        with self.path.open("rb") as file:
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # being written, or torn: read it again next time
                entry = _decode(line)
                if isinstance(entry, dict) and isinstance(entry.get("key"), str):
                    self._places[entry["key"]] = (start, len(line))
                start += len(line)
                self._read_to = start

    def _pread(self, offset: int, length: int) -> bytes:
        return os.pread(self._file.fileno(), length, offset)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"the journal {self.path} cannot be used: {error.strerror}",
                hint="check the free space and the permissions; journaled replies are kept",
            ) from error


def counted_replies(count: int) -> str:
    """Return a count of replies as text."""
    return f"{count} {'reply' if count == 1 else 'replies'}"


def _decode(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return None  # a torn line, or a damaged one
