"""Cache vectors, so that the same embedder never embeds a text twice.

There is one SQLite file per embedder, in the store's journal, shared by all stages, specs and runs.
It maps the SHA-256 of a text, prefix included, to its vector. Entries are permanent: a killed
embedding resumes where it stopped, and an edited document costs only its changed chunks. Several
processes may use the file at once. A damaged file is replaced by a new one, with a warning, since
everything in it can be computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from llmpipe.canonical import digest
from llmpipe.errors import StoreError
from llmpipe.retrieval.embedder import EmbedderIdentity

if TYPE_CHECKING:
    from llmpipe.retrieval.embedder import Vectors

FOLDER = "embeddings"
"""The folder of these files in the journal."""
FORMAT = 1
"""Raised when the layout of the files changes."""
KEYS_PER_QUERY = 900
"""How many vectors one query reads."""
BUSY_TIMEOUT = 60.0
"""Seconds to wait for other processes that use the file."""

_IRRELEVANT = ("model", "dimension", "max_tokens", "passage_prefix", "query_prefix")
"""Identity fields that do not affect the vector of a text that already includes its prefix."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def text_key(text: str) -> bytes:
    """Return the key of a text, prefix included."""
    return hashlib.sha256(text.encode()).digest()


def memory_file(journal: Path, identity: EmbedderIdentity) -> Path:
    """Return the cache file of an embedder."""
    fields = msgspec.to_builtins(identity)
    shaping = {name: value for name, value in fields.items() if name not in _IRRELEVANT}
    return journal / FOLDER / f"{digest({'format': FORMAT, **shaping})[:32]}.sqlite"


class VectorMemory:
    """Vectors by the key of their text. Use it as a context manager.

    Raises:
        StoreError: the folder cannot be written, or the disk is full.
    """

    def __init__(self, path: Path, warn: Callable[[str], None] = lambda message: None) -> None:
        self.path = path
        self._warn = warn
        with self._store_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._open()

    def __enter__(self) -> VectorMemory:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()

    def known(self, keys: Sequence[bytes]) -> set[bytes]:
        """Return which of the keys have a vector."""
        return {key for key, _ in self._rows("key, 0", keys)}

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        """Return the vectors of the keys that have one."""
        import numpy as np

        rows = self._rows("key, vector", keys)
        return {key: np.frombuffer(vector, np.float32) for key, vector in rows}

    def put(self, keys: Sequence[bytes], vectors: Vectors) -> None:
        """Store a vector for each key, all or none."""
        rows = [(key, row.tobytes()) for key, row in zip(keys, vectors, strict=True)]
        with self._store_errors():
            try:
                self._insert(rows)
            except sqlite3.DatabaseError as error:
                self._recreate(error)
                self._insert(rows)

    def _insert(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    def _rows(self, columns: str, keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        with self._store_errors():
            try:
                for begin in range(0, len(keys), KEYS_PER_QUERY):
                    part = keys[begin : begin + KEYS_PER_QUERY]
                    marks = ",".join("?" * len(part))
                    query = f"SELECT {columns} FROM vectors WHERE key IN ({marks})"
                    found += self._connection.execute(query, part)
            except sqlite3.DatabaseError as error:
                self._recreate(error)
                return []
        return found

    def _open(self) -> sqlite3.Connection:
        try:
            return _connect(self.path)
        except sqlite3.DatabaseError as error:
            self._discard(error)
            return _connect(self.path)

    def _recreate(self, error: sqlite3.DatabaseError) -> None:
        self._connection.close()
        self._discard(error)
        self._connection = _connect(self.path)

    def _discard(self, error: sqlite3.DatabaseError) -> None:
        """Remove a damaged file; raise any other error again."""
        if error.sqlite_errorcode & 0xFF not in _DAMAGED:
            raise error
        self._warn(f"{self.path} is damaged ({error}); it is replaced and filled again")
        for name in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _store_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"the vector cache {self.path} cannot be used: {error}",
                hint="check the free space and the permissions; finished vectors are kept",
            ) from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT)
    try:
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL)"
        )
        connection.commit()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging, so that readers do not block a writer.

    Another process may be opening the new file at the same time. SQLite waits for every other
    lock, but not for the one that this change needs.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
