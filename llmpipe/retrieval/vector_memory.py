"""The memory of what was embedded: no text is embedded twice by the same embedder.

One SQLite file for each embedder, in the store's journal, shared by all stages, specs and runs. It
maps the SHA-256 of a text, prefix included, to its vector. What is put is there for good, so that
an embedding that was killed goes on where it was, and an edited document costs only the chunks that
changed. Several processes may use it at once. A file that is damaged is begun anew, with a warning:
it holds nothing that cannot be computed again.
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
"""Where the files lie in the journal."""
FORMAT = 1
"""Raised when the files are laid out in another way."""
AT_ONCE = 900
"""How many vectors one query asks for."""
PATIENCE = 60.0
"""Seconds to wait for others that use the file."""

_ELSEWHERE = ("model", "dimension", "max_tokens", "passage_prefix", "query_prefix")
"""What of an embedder's identity does not shape the vector of a text that has its prefix."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def text_key(text: str) -> bytes:
    """Give the key of a text, prefix included."""
    return hashlib.sha256(text.encode()).digest()


def memory_file(journal: Path, identity: EmbedderIdentity) -> Path:
    """Name the file of an embedder."""
    fields = msgspec.to_builtins(identity)
    shaping = {name: value for name, value in fields.items() if name not in _ELSEWHERE}
    return journal / FOLDER / f"{digest({'format': FORMAT, **shaping})[:32]}.sqlite"


class VectorMemory:
    """Vectors by the key of their text. Use it as a context manager.

    Raises:
        StoreError: the folder cannot be written, or the disk is full.
    """

    def __init__(self, path: Path, warn: Callable[[str], None] = lambda message: None) -> None:
        self.path = path
        self._warn = warn
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._open()

    def __enter__(self) -> VectorMemory:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()

    def known(self, keys: Sequence[bytes]) -> set[bytes]:
        """Tell which of the keys have a vector."""
        return {key for key, _ in self._rows("key, 0", keys)}

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        """Give the vectors of those keys that have one."""
        import numpy as np

        rows = self._rows("key, vector", keys)
        return {key: np.frombuffer(vector, np.float32) for key, vector in rows}

    def put(self, keys: Sequence[bytes], vectors: Vectors) -> None:
        """Remember a vector for each key, all or none of them."""
        rows = [(key, row.tobytes()) for key, row in zip(keys, vectors, strict=True)]
        with self._explained():
            try:
                self._insert(rows)
            except sqlite3.DatabaseError as error:
                self._begin_anew(error)
                self._insert(rows)

    def _insert(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    def _rows(self, columns: str, keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        with self._explained():
            try:
                for begin in range(0, len(keys), AT_ONCE):
                    part = keys[begin : begin + AT_ONCE]
                    marks = ",".join("?" * len(part))
                    query = f"SELECT {columns} FROM vectors WHERE key IN ({marks})"
                    found += self._connection.execute(query, part)
            except sqlite3.DatabaseError as error:
                self._begin_anew(error)
                return []
        return found

    def _open(self) -> sqlite3.Connection:
        try:
            return _opened(self.path)
        except sqlite3.DatabaseError as error:
            self._discard(error)
            return _opened(self.path)

    def _begin_anew(self, error: sqlite3.DatabaseError) -> None:
        self._connection.close()
        self._discard(error)
        self._connection = _opened(self.path)

    def _discard(self, error: sqlite3.DatabaseError) -> None:
        """Remove a damaged file; any other error is raised again."""
        if error.sqlite_errorcode & 0xFF not in _DAMAGED:
            raise error
        self._warn(f"{self.path} is damaged ({error}); it is begun anew, and embedded again")
        for name in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"the memory of vectors {self.path} cannot be used: {error}",
                hint="check the free space and the permissions; what was embedded is kept",
            ) from error


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=PATIENCE)
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
    """Let readers and a writer go together. Others may be opening the new file in this moment.

    SQLite waits for every other lock by itself, and for the one of this change it does not.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
