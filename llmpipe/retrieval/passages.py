"""Store documents and chunks in one SQLite file, read by row or id and narrowed by filters.

The file is written once, in input order. The same input and SQLite version give the same bytes. It
is opened as immutable, without locks or extra files. Filter values are always bound as parameters;
the SQL itself is fixed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sqlite3
import threading
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from llmpipe.documents.model import Document, Scalar
from llmpipe.errors import StageError, remake
from llmpipe.retrieval.chunks import Chunk
from llmpipe.retrieval.filters import Between, Filters, read_filters, require_key

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]
    Mask = NDArray[np.bool_]

_ROW = "<u4"
"""The type of a row number inside a blob."""

_TABLES = """
CREATE TABLE documents (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, body BLOB NOT NULL);
CREATE TABLE chunks (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, document INTEGER NOT NULL,
    body BLOB NOT NULL);
CREATE TABLE sections (path TEXT PRIMARY KEY, rows BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE metadata (key TEXT NOT NULL, type TEXT NOT NULL, value NOT NULL, rows BLOB NOT NULL,
    PRIMARY KEY (key, type, value)) WITHOUT ROWID;
"""
_SECTION_ROWS = """
SELECT rows FROM sections WHERE substr(path, 1, :length) = :path
    AND substr(path, :length + 1, 1) IN (',', ']')
"""
_KEYS = """
WITH RECURSIVE keys(key) AS (
    SELECT min(key) FROM metadata
    UNION ALL
    SELECT (SELECT min(key) FROM metadata WHERE key > keys.key) FROM keys WHERE key IS NOT NULL
)
SELECT key FROM keys WHERE key IS NOT NULL
"""
"""Takes one index lookup per key, however many values a key has."""
_EQUAL_ROWS = "SELECT rows FROM metadata WHERE key = ? AND type = ? AND value = ?"
_BETWEEN_ROWS = """
SELECT rows FROM metadata WHERE key = :key AND type = :type
    AND (:low IS NULL OR value >= :low) AND (:high IS NULL OR value <= :high)
"""


def write_passages(path: Path, documents: Iterable[Document], chunks: Iterable[Chunk]) -> int:
    """Write the file and return the number of documents; a chunk's row is its position.

    Raises:
        StageError: two have the same id, or a chunk belongs to an unknown document.
    """
    db = sqlite3.connect(path, isolation_level=None)
    with contextlib.closing(db):
        # The file is part of an unfinished artifact: no journal, and it is synced as a whole later.
        db.executescript(
            "PRAGMA page_size=4096; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
            "PRAGMA user_version=1; BEGIN;" + _TABLES
        )
        try:
            described = _write_documents(db, documents)
            _write_chunks(db, chunks, described)
            db.execute("COMMIT")
            db.execute("VACUUM")
        except sqlite3.IntegrityError as error:
            raise StageError(f"documents or chunks share an id: {error}") from None
        except sqlite3.OperationalError as error:  # a full disk
            raise StageError(f"{path} cannot be written: {error}") from None
    return len(described)


Described = dict[str, tuple[int, Mapping[str, Scalar]]]
_Postings = defaultdict[tuple[Any, ...], "array[int]"]
_no_rows = functools.partial(array, "I")


def _write_documents(db: sqlite3.Connection, documents: Iterable[Document]) -> Described:
    """Write the documents; return the number and metadata of each by its id."""
    encoder, described = msgspec.json.Encoder(), Described()
    for number, document in enumerate(documents):
        row = (number, document.id, encoder.encode(document))
        db.execute("INSERT INTO documents VALUES (?, ?, ?)", row)
        described[document.id] = (number, document.metadata)
    return described


def _write_chunks(db: sqlite3.Connection, chunks: Iterable[Chunk], documents: Described) -> None:
    """Write the chunks, and the rows of each section and metadata value."""
    encoder = msgspec.json.Encoder()
    sections, metadata = _Postings(_no_rows), _Postings(_no_rows)
    for row, chunk in enumerate(chunks):
        if chunk.document not in documents:
            raise StageError(f"the document {chunk.document!r} of the chunk {chunk.id} is missing")
        number, inherited = documents[chunk.document]
        values = (row, chunk.id, number, encoder.encode(chunk))
        db.execute("INSERT INTO chunks VALUES (?, ?, ?, ?)", values)
        sections[(json.dumps(chunk.section),)].append(row)
        for key, value in (dict(inherited) | dict(chunk.metadata)).items():
            metadata[(key, *_comparable(value))].append(row)
    db.executemany("INSERT INTO sections VALUES (?, ?)", _packed(sections))
    db.executemany("INSERT INTO metadata VALUES (?, ?, ?, ?)", _packed(metadata))


def _packed(postings: _Postings) -> Iterator[tuple[Any, ...]]:
    """Yield each key in order with its rows as one blob."""
    import numpy as np

    for common in sorted(postings):
        yield *common, np.asarray(postings[common]).astype(_ROW).tobytes()


class _Origin(msgspec.Struct, frozen=True):
    """The fields of a document that say where it comes from; its text is not decoded."""

    source_digest: str
    row: int = 0


class Passages:
    """The documents and chunks of an index. It is thread-safe."""

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
        """The number of chunks."""

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def chunk(self, row: int) -> Chunk:
        """Return the chunk of a row.

        Raises:
            KeyError: there is no such row.
        """
        found = self._query("SELECT body FROM chunks WHERE row = ?", (int(row),))
        if not found:
            raise KeyError(row)
        return self._chunk(found[0][0])

    def chunks(self, rows: Iterable[int]) -> list[Chunk]:
        """Return the chunks of the given rows, in their order."""
        return [self.chunk(row) for row in rows]

    def document(self, name: str) -> Document | None:
        """Return the document with an id, or None."""
        found = self._query("SELECT body FROM documents WHERE id = ?", (name,))
        return self._document(found[0][0]) if found else None

    def document_ids(self) -> list[str]:
        """Return the ids of all documents, in order."""
        return [name for (name,) in self._query("SELECT id FROM documents ORDER BY number")]

    def documents_by_row(self, source_digest: str) -> dict[int, str]:
        """Return the ids of the documents made from rows of a file, by row number."""
        made: dict[int, str] = {}
        for name in self.document_ids():
            ((body,),) = self._query("SELECT body FROM documents WHERE id = ?", (name,))
            origin = msgspec.json.decode(body, type=_Origin)
            if origin.row and origin.source_digest == source_digest:
                made.setdefault(origin.row, name)
        return made

    def chunk_ids(self) -> list[str]:
        """Return the ids of all chunks, by row."""
        return [name for (name,) in self._query("SELECT id FROM chunks ORDER BY row")]

    def metadata_keys(self) -> list[str]:
        """Return the sorted metadata keys of all documents and chunks."""
        return [key for (key,) in self._query(_KEYS)]

    def rows_matching(self, filters: Filters) -> Rows:
        """Return the sorted rows of the chunks that match every filter.

        Raises:
            FilterError: a filter is malformed, or its key is in no document's metadata.
        """
        import numpy as np

        conditions = read_filters(filters)
        matching = np.ones(self.count, dtype=bool)
        if conditions.documents:
            admitted = np.array(conditions.admits_documents(self._document_ids), dtype=bool)
            matching &= admitted[self._documents]
        if conditions.section:
            path = json.dumps(conditions.section).removesuffix("]")
            values = {"path": path, "length": len(path)}
            matching &= self._mask(self._query(_SECTION_ROWS, values))
        for key, condition in conditions.metadata:
            postings = self._postings(key, condition)
            if not postings:
                require_key(key, self.metadata_keys())
            matching &= self._mask(postings)
        return np.flatnonzero(matching)

    def _mask(self, postings: Sequence[tuple[bytes]]) -> Mask:
        import numpy as np

        mask = np.zeros(self.count, dtype=bool)
        for (rows,) in postings:
            mask[np.frombuffer(rows, _ROW)] = True
        return mask

    @functools.cached_property
    def _document_ids(self) -> list[str]:
        return self.document_ids()

    @functools.cached_property
    def _documents(self) -> Rows:
        """The document number of every row."""
        import numpy as np

        found = self._query("SELECT document FROM chunks ORDER BY row")
        return np.fromiter((number for (number,) in found), dtype=np.int64, count=self.count)

    def _postings(self, key: str, condition: tuple[Scalar, ...] | Between) -> list[Any]:
        if isinstance(condition, Between):
            bounds = {"low": condition.low, "high": condition.high}
            given = {name: _comparable(b) for name, b in bounds.items() if b is not None}
            type_name = next(iter(given.values()))[0]
            values = {name: given[name][1] if name in given else None for name in bounds}
            return self._query(_BETWEEN_ROWS, {"key": key, "type": type_name, **values})
        return [
            found
            for value in dict.fromkeys(map(_comparable, condition))
            for found in self._query(_EQUAL_ROWS, (key, *value))
        ]

    def _query(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        try:
            with self._lock:
                return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: sqlite3.Error) -> StageError:
        return StageError(
            f"{self._path} cannot be read: {error}",
            hint=remake("index"),
        )


def _comparable(value: Scalar) -> tuple[str, str | int | float]:
    """Return a metadata value with its type, so that 1, "1" and true are three values."""
    if isinstance(value, bool):
        return "truth", int(value)
    if isinstance(value, str):
        return "text", value
    fits = isinstance(value, float) or -(2**63) <= value < 2**63
    return "number", value if fits else float(value)
