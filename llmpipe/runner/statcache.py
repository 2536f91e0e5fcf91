"""Content digests of input files, remembered by their stat so that unchanged files are not reread.

A file counts as unchanged when size, mtime, inode and ctime are what they were when it was hashed,
and its mtime is older than that moment: a file written in the very tick in which it was hashed
could change again without a trace (git's "racy" case) and is hashed anew.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from llmpipe.errors import StageError, StoreError
from llmpipe.runner.fingerprint import digest

RACY_NS = 20_000_000
"""How much older than the hashing an mtime must be to be trusted (clock ticks of file systems)."""

_TABLE = """
create table if not exists files (
    path text primary key, size integer, mtime integer, inode integer, ctime integer,
    sha256 text, hashed integer
) without rowid
"""


def hash_file(path: Path) -> str:
    """Give the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class StatCache:
    """The memory of digests in one SQLite file; safe to share between processes."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = self._open(path)
        except sqlite3.DatabaseError:
            path.unlink(missing_ok=True)  # only a memory: a damaged one is begun anew
            self._db = self._open(path)

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, timeout=30, isolation_level=None)
        db.execute("pragma journal_mode=wal")
        db.execute("pragma synchronous=off")
        db.execute(_TABLE)
        return db

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def digest(self, path: Path) -> str:
        """Give the digest of a file's bytes, or of a folder's sorted manifest.

        Raises:
            StageError: the file or folder cannot be read.
        """
        try:
            if path.is_dir():
                return digest([[name, self._file(file)] for name, file in folder_files(path)])
            return self._file(path)
        except OSError as error:
            raise StageError(f"{path} cannot be read: {error.strerror}") from None

    def _file(self, path: Path) -> str:
        now = path.stat()
        seen = (now.st_size, now.st_mtime_ns, now.st_ino, now.st_ctime_ns)
        try:
            row = self._db.execute(
                "select size, mtime, inode, ctime, sha256, hashed from files where path = ?",
                (str(path),),
            ).fetchone()
            if row and row[:4] == seen and max(seen[1], seen[3]) < row[5] - RACY_NS:
                return str(row[4])
            begun = time.time_ns()
            sha256 = hash_file(path)
            self._db.execute(
                "insert or replace into files values (?, ?, ?, ?, ?, ?, ?)",
                (str(path), *seen, sha256, begun),
            )
        except sqlite3.Error as error:
            raise StoreError(f"the stat cache cannot be used: {error}") from None
        return sha256


def folder_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Give the regular files below a folder as (relative name, path), sorted by name."""
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in (".git", "__pycache__")]
        found += [Path(root, name) for name in files]
    named = sorted((path.relative_to(folder).as_posix(), path) for path in found)
    return ((name, path) for name, path in named if stat.S_ISREG(path.stat().st_mode))
