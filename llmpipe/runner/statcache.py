"""Content digests of input files, cached by file stats so that unchanged files are not read again.

A file counts as unchanged if its size, mtime, inode and ctime are those of its last hashing, and
its mtime is older than that moment. A file that was written within the same clock tick could change
again without a trace (git's "racy" case), so it is hashed again. The digest of a folder is that of
its sorted manifest. A whole folder is remembered by the stats of all its files together, so that a
hundred thousand small files cost one stat each and one lookup. The files of a folder are remembered
by its digest, as far as space allows, to tell later which ones changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from stat import S_ISDIR

from llmpipe.errors import StageError, StoreError
from llmpipe.gguf_parts import all_parts, part_of
from llmpipe.patterns import (
    UNSEEN,
    Above,
    followed,
    is_circle,
    is_own,
    matching_files,
    refuse_special,
)

RACY_NS = 20_000_000
"""How much older than its hashing an mtime must be to be trusted, for file system ticks."""

LAYOUT = 2
"""The version of the tables. A cache with another version is replaced."""

ROOM = 64_000_000
"""Bytes for the files of folders; entries that were not used for longest are dropped."""

CHUNK = 1 << 20
"""Bytes of a file that are read at a time."""

_TABLES = """
create table if not exists files (
    path blob primary key, size integer, mtime integer, inode integer, ctime integer,
    sha256 text, hashed integer
) without rowid;
create table if not exists folders (
    path blob primary key, stamp blob, newest integer, digest text, hashed integer
) without rowid;
create table if not exists contents (digest text primary key, files blob, used integer);
"""

_SOUND = " and typeof({0}) = 'text' and length({0}) = 64 and typeof(hashed) = 'integer'"
_KNOWN_FILE = "select * from files where path = ?" + _SOUND.format("sha256")
_KNOWN_FILES = "select * from files where path >= ? and path < ?" + _SOUND.format("sha256")
_KNOWN_FOLDER = "select stamp, digest, hashed from folders where path = ?" + _SOUND.format("digest")

_FORGET = """
delete from contents where digest in (
    select digest from (
        select digest, sum(length(files)) over (order by used desc, digest) as total from contents
    ) where total > ?
)
"""

Stamp = tuple[int, int, int, int]
"""What identifies an unchanged file: size, mtime_ns, inode, ctime_ns."""

Notice = Callable[[Path, int, int], None]
"""Called while a big file is read, with its path, the bytes read so far, and all of them."""


def hash_file(path: Path, notice: Notice | None = None) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    sha256, done = hashlib.sha256(), 0
    buffer = memoryview(bytearray(CHUNK))
    with path.open("rb", buffering=0) as stream:
        total = os.fstat(stream.fileno()).st_size
        while size := stream.readinto(buffer):
            sha256.update(buffer[:size])
            done += size
            if notice:
                notice(path, done, total)
    return sha256.hexdigest()


def manifest_digest(files: Iterable[tuple[str, str]]) -> str:
    """Return the digest of a folder from the (name, SHA-256) of its files, sorted by name."""
    rows = [[name, sha256] for name, sha256 in files]
    text = json.dumps(rows, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


class StatCache:
    """A cache of digests in one SQLite file; processes can share it.

    If the file cannot be written, nothing is remembered for the next time. That is enough for a
    plan.
    """

    def __init__(self, path: Path, notice: Notice | None = None) -> None:
        self._path = path
        self._notice = notice
        try:
            self._db = self._open()
        except sqlite3.DatabaseError:
            self._db = self._start_empty()

    def _open(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return self._connect(self._path)
        except (OSError, sqlite3.OperationalError):
            return self._connect(":memory:")

    def _start_empty(self) -> sqlite3.Connection:
        """Replace a damaged cache by an empty one; nothing of value is lost."""
        try:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        except OSError:
            return self._connect(":memory:")
        return self._open()

    @staticmethod
    def _connect(path: Path | str) -> sqlite3.Connection:
        db = sqlite3.connect(path, timeout=30, isolation_level=None)
        db.execute("pragma journal_mode=wal")
        db.execute("pragma synchronous=off")
        if db.execute("pragma user_version").fetchone() != (LAYOUT,):
            db.executescript("drop table if exists files; drop table if exists folders")
            db.execute(f"pragma user_version={LAYOUT}")
        db.executescript(_TABLES)
        return db

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def digest(self, path: Path, pattern: str | None = None) -> str:
        """Return the digest of a file's bytes, or of a folder's sorted manifest.

        A part of a split GGUF stands for all its parts: the digest is that of their manifest,
        without the stem of the names. With a ``pattern``, only the matching files of the folder
        count.

        Raises:
            StageError: The file or folder cannot be read.
            StoreError: The cache cannot be used.
        """
        try:
            return self._digest(path, pattern)
        except OSError as error:
            place = error.filename or path
            raise StageError(f"{place} cannot be read: {error.strerror}") from None
        except sqlite3.Error as error:
            raise StoreError(f"the stat cache {self._path} cannot be used: {error}") from None

    def files_of(self, digest: str) -> dict[str, str] | None:
        """Return the files of a folder with this digest, each with what identifies its content.

        Returns None if the digest is not that of a folder, or was dropped.
        """
        try:
            row = self._db.execute("select files from contents where digest = ?", (digest,))
            found = row.fetchone()
            if found is None:
                return None
            with contextlib.suppress(sqlite3.Error):  # returned all the same, and dropped sooner
                used = (time.time_ns(), digest)
                self._db.execute("update contents set used = ? where digest = ?", used)
            files = json.loads(zlib.decompress(found[0]))
        except (sqlite3.Error, zlib.error, ValueError, TypeError):
            return None  # only a cache
        return files if isinstance(files, dict) else None

    def _digest(self, path: Path, pattern: str | None) -> str:
        def look_up(path: Path) -> str:
            if path.is_dir():
                return self._folder(path, pattern)
            parts = all_parts(path)
            return self._file(path) if len(parts) == 1 else self._parts(parts)

        try:
            return look_up(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and not _is_damage(error):
                raise  # locked or read-only
            self._db.close()
            self._db = self._start_empty()
            return look_up(path)

    def _file(self, path: Path) -> str:
        name = os.fsencode(path)
        row = self._db.execute(_KNOWN_FILE, (name,)).fetchone()
        status = path.stat()
        refuse_special(status.st_mode, path)
        seen = stamp(status)
        if row and _is_unchanged(row, seen):
            return str(row[5])
        begun = time.time_ns()
        sha256 = hash_file(path, self._notice)
        row = (name, *seen, sha256, begun)
        self._db.execute("insert or replace into files values (?, ?, ?, ?, ?, ?, ?)", row)
        return sha256

    def _parts(self, parts: Iterable[Path]) -> str:
        files = []
        for path in parts:
            part = part_of(path.name)
            assert part is not None
            files.append((part.ending(part.number), self._file(path)))
        digest = manifest_digest(files)
        self._keep_contents(digest, files)
        return digest

    def _folder(self, folder: Path, pattern: str | None) -> str:
        begun, name = time.time_ns(), os.fsencode(folder)
        if pattern is None:
            found = sorted(_scan(str(folder), UNSEEN))
        else:
            name += b"\0" + os.fsencode(pattern)
            matching = matching_files(folder, pattern)
            found = sorted((inner, stamp(seen)) for inner, seen in matching)
        whole = hashlib.sha256(repr(found).encode("utf-8", "surrogateescape")).digest()
        newest = max((max(seen[1], seen[3]) for _, seen in found), default=0)
        row = self._db.execute(_KNOWN_FOLDER, (name,)).fetchone()
        if row and row[0] == whole and newest < row[2] - RACY_NS:
            return str(row[1])
        files = list(self._hashed(folder, found))
        digest = manifest_digest(files)
        self._keep_contents(digest, files)
        values = (name, whole, newest, digest, begun)
        self._db.execute("insert or replace into folders values (?, ?, ?, ?, ?)", values)
        return digest

    def _keep_contents(self, digest: str, files: Iterable[tuple[str, str]]) -> None:
        """Remember the files of a folder; drop old entries if they take too much space."""
        told = {name: sha256[:16] for name, sha256 in files}
        packed = zlib.compress(json.dumps(told).encode(), level=1)
        row = (digest, packed, time.time_ns())
        self._db.execute("insert or replace into contents values (?, ?, ?)", row)
        self._db.execute(_FORGET, (ROOM,))

    def _hashed(self, folder: Path, found: list[tuple[str, Stamp]]) -> Iterator[tuple[str, str]]:
        """Yield the digest of each file of a folder; only changed files are read."""
        prefix = os.fsencode(folder) + b"/"
        beyond = os.fsencode(folder) + b"0"  # "0" is what follows "/"
        rows = self._db.execute(_KNOWN_FILES, (prefix, beyond))
        known = {row[0]: row for row in rows}
        fresh = []
        for name, seen in found:
            path = prefix + os.fsencode(name)
            row = known.get(path)
            if row and _is_unchanged(row, seen):
                yield name, row[5]
                continue
            begun = time.time_ns()
            sha256 = hash_file(folder / name, self._notice)
            fresh.append((path, *seen, sha256, begun))
            yield name, sha256
        self._db.execute("begin")
        self._db.executemany("insert or replace into files values (?, ?, ?, ?, ?, ?, ?)", fresh)
        self._db.execute("commit")


def folder_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Return all regular files of an artifact's folder as (relative name, path), sorted by name."""
    return ((name, folder / name) for name, _ in sorted(_scan(str(folder))))


def content_files(path: Path, pattern: str | None = None) -> list[tuple[str, Path]]:
    """Return the files that a digest covers, with their names in the artifact.

    Raises:
        OSError: Something cannot be read.
    """
    if pattern is not None:
        return [(name, path / name) for name, _ in matching_files(path, pattern)]
    if path.is_dir():
        return [(name, path / name) for name, _ in _scan(str(path), UNSEEN)]
    return [(part.name, part) for part in all_parts(path)]


def content_size(path: Path, pattern: str | None = None) -> int:
    """Return the bytes of a file, of a folder, or of those files of it that match a pattern.

    Raises:
        OSError: Something cannot be read.
    """
    if pattern is not None:
        return sum(seen.st_size for _, seen in matching_files(path, pattern))
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for _, file in folder_files(path))


def _scan(folder: str, unseen: Collection[str] = ()) -> Iterator[tuple[str, Stamp]]:
    """Yield the regular files below a folder. Links are followed, except in circles.

    A broken or circular link, as editors use for locks, is not a file.

    Raises:
        StageError: The folder holds a pipe, socket or device.
    """
    waiting: list[tuple[str, str, Above]] = [(folder, "", ())]
    while waiting:
        inner, below, above = waiting.pop()
        here = Path(inner).stat()
        above = (*above, (here.st_dev, here.st_ino))
        with os.scandir(inner) as entries:
            for entry in entries:
                found = followed(entry)
                if found is None:
                    continue
                if S_ISDIR(found.st_mode):
                    if entry.name not in unseen and not is_circle(entry, found, above):
                        waiting.append((entry.path, f"{below}{entry.name}/", above))
                elif not (unseen and is_own(entry)):
                    refuse_special(found.st_mode, entry.path)
                    yield below + entry.name, stamp(found)


def stamp(found: os.stat_result) -> Stamp:
    """Return what identifies an unchanged file."""
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns


def _is_damage(error: sqlite3.OperationalError) -> bool:
    """Return whether a table or a column is missing, or a file of the database cannot be read.

    The last occurs where another one found damage, and removed the files that are open here.
    """
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_IOERR)


def _is_unchanged(row: tuple[bytes, int, int, int, int, str, int], seen: Stamp) -> bool:
    return row[1:5] == seen and max(seen[1], seen[3]) < row[6] - RACY_NS
