"""Documents and chunks in one SQLite file, read by row or id and narrowed by filters.

The file is written once, in the order of its input, and is the same to the byte for the same
input and SQLite. It is opened as immutable: nothing is locked and nothing written beside it. What a
filter asks for is always bound as a parameter; the SQL itself is fixed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from llmpipe.documents.model import Document, Scalar
from llmpipe.errors import StageError
from llmpipe.retrieval.chunks import Chunk
from llmpipe.retrieval.filters import Between, Filters, read_filters

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

_TABLES = """
CREATE TABLE documents (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, body BLOB NOT NULL);
CREATE TABLE chunks (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, document INTEGER NOT NULL,
    section TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE metadata (key TEXT NOT NULL, type TEXT NOT NULL, value NOT NULL, row INTEGER NOT NULL,
    PRIMARY KEY (key, type, value, row)) WITHOUT ROWID;
"""
_INDEXES = """
CREATE INDEX chunks_by_section ON chunks (section);
VACUUM;
"""
_SECTION_ROWS = """
SELECT row FROM chunks WHERE substr(section, 1, :length) = :path
    AND substr(section, :length + 1, 1) IN (',', ']')
"""
_EQUAL_ROWS = "SELECT row FROM metadata WHERE key = ? AND type = ? AND value = ?"
_BETWEEN_ROWS = """
SELECT row FROM metadata WHERE key = :key AND type = :type
    AND (:low IS NULL OR value >= :low) AND (:high IS NULL OR value <= :high)
"""


def write_passages(path: Path, documents: Iterable[Document], chunks: Iterable[Chunk]) -> int:
    """Write the file; a chunk's row is its place among the chunks. Give how many documents it has.

    Raises:
        StageError: two have the same id, or a chunk is of no document there.
    """
    db = sqlite3.connect(path, isolation_level=None)
    with contextlib.closing(db):
        # A part of an artifact that is being made: no journal, and it is synced as a whole later.
        db.executescript(
            "PRAGMA page_size=4096; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
            "PRAGMA user_version=1; BEGIN;" + _TABLES
        )
        try:
            metadata = _write_documents(db, documents)
            _write_chunks(db, chunks, metadata)
        except sqlite3.IntegrityError as error:
            raise StageError(f"documents or chunks share an id: {error}") from None
        db.execute("COMMIT")
        db.executescript(_INDEXES)
    return len(metadata)


Described = dict[str, tuple[int, Mapping[str, Scalar]]]


def _write_documents(db: sqlite3.Connection, documents: Iterable[Document]) -> Described:
    """Write the documents; give the number and metadata of each by its id."""
    encoder, described = msgspec.json.Encoder(), Described()
    for number, document in enumerate(documents):
        row = (number, document.id, encoder.encode(document))
        db.execute("INSERT INTO documents VALUES (?, ?, ?)", row)
        described[document.id] = (number, document.metadata)
    return described


def _write_chunks(db: sqlite3.Connection, chunks: Iterable[Chunk], documents: Described) -> None:
    encoder = msgspec.json.Encoder()
    for row, chunk in enumerate(chunks):
        if chunk.document not in documents:
            raise StageError(f"the chunk {chunk.id} is of {chunk.document!r}, which is not there")
        number, inherited = documents[chunk.document]
        values = (row, chunk.id, number, json.dumps(chunk.section), encoder.encode(chunk))
        db.execute("INSERT INTO chunks VALUES (?, ?, ?, ?, ?)", values)
        for key, value in (dict(inherited) | dict(chunk.metadata)).items():
            entry = (key, *_comparable(value), row)
            db.execute("INSERT INTO metadata VALUES (?, ?, ?, ?)", entry)


class Passages:
    """The documents and chunks of an index. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            StageError: it cannot be read.
        """
        self._path = path
        self._lock = threading.Lock()
        self._chunk = msgspec.json.Decoder(Chunk).decode
        self._document = msgspec.json.Decoder(Document).decode
        try:
            self._db = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro&immutable=1",
                uri=True,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise self._unreadable(error) from None
        self.count = int(self._query("SELECT count(*) FROM chunks")[0][0])
        """How many chunks there are."""

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def chunk(self, row: int) -> Chunk:
        """Give the chunk of a row.

        Raises:
            KeyError: there is no such row.
        """
        found = self._query("SELECT body FROM chunks WHERE row = ?", (int(row),))
        if not found:
            raise KeyError(row)
        return self._chunk(found[0][0])

    def chunks(self, rows: Iterable[int]) -> list[Chunk]:
        """Give the chunks of some rows, in their order."""
        return [self.chunk(row) for row in rows]

    def document(self, name: str) -> Document | None:
        """Give the document with an id, or None where there is none."""
        found = self._query("SELECT body FROM documents WHERE id = ?", (name,))
        return self._document(found[0][0]) if found else None

    def document_ids(self) -> list[str]:
        """Give the ids of all documents, in their order."""
        return [name for (name,) in self._query("SELECT id FROM documents ORDER BY number")]

    def chunk_ids(self) -> list[str]:
        """Give the ids of all chunks, by row."""
        return [name for (name,) in self._query("SELECT id FROM chunks ORDER BY row")]

    def rows_matching(self, filters: Filters) -> Rows:
        """Give the rows of the chunks that meet every one of the filters, sorted.

        Raises:
            StageError: a filter is of no known form.
        """
        import numpy as np

        conditions = read_filters(filters)
        matching: Rows = np.arange(self.count, dtype=np.int64)
        if conditions.documents:
            admitted = np.array(conditions.admits_documents(self._document_ids), dtype=bool)
            matching = matching[admitted[self._documents]]
        if conditions.section:
            path = json.dumps(conditions.section).removesuffix("]")
            found = self._query(_SECTION_ROWS, {"path": path, "length": len(path)})
            matching = np.intersect1d(matching, _column(found))
        for key, condition in conditions.metadata:
            matching = np.intersect1d(matching, _column(self._rows_with(key, condition)))
        return matching

    @functools.cached_property
    def _document_ids(self) -> list[str]:
        return self.document_ids()

    @functools.cached_property
    def _documents(self) -> Rows:
        """The number of the document of every row."""
        return _column(self._query("SELECT document FROM chunks ORDER BY row"))

    def _rows_with(self, key: str, condition: tuple[Scalar, ...] | Between) -> list[Any]:
        if isinstance(condition, Between):
            bounds = {"low": condition.low, "high": condition.high}
            given = {name: _comparable(b) for name, b in bounds.items() if b is not None}
            type_name = next(iter(given.values()))[0]
            values = {name: given[name][1] if name in given else None for name in bounds}
            return self._query(_BETWEEN_ROWS, {"key": key, "type": type_name, **values})
        return [
            row
            for value in dict.fromkeys(map(_comparable, condition))
            for row in self._query(_EQUAL_ROWS, (key, *value))
        ]

    def _query(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        try:
            with self._lock:
                return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: sqlite3.Error) -> StageError:
        return StageError(f"{self._path} cannot be read: {error}", hint="make it anew: llmpipe run SPEC --force and the index stage's name")


def _comparable(value: Scalar) -> tuple[str, str | int | float]:
    """Give a value of metadata with the name of its type: 1, "1" and true are three values."""
    if isinstance(value, bool):
        return "truth", int(value)
    if isinstance(value, str):
        return "text", value
    fits = isinstance(value, float) or -(2**63) <= value < 2**63
    return "number", value if fits else float(value)


def _column(rows: Sequence[tuple[int]]) -> Rows:
    import numpy as np

    return np.fromiter((row for (row,) in rows), dtype=np.int64, count=len(rows))
