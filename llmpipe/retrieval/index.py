"""The folder that is searched: vectors, BM25 index, passages and the identity of the embedder.

It is always built as a whole from embeddings, in their order, so that an updated index answers
exactly like a new one. An update saves only the embedding of unchanged chunks. ``index.json``
contains the SHA-256 of every other file, and an index with altered files is not opened.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from llmpipe.backends import faiss as faiss_backend
from llmpipe.backends.faiss import VectorIndex
from llmpipe.contracts import write_json
from llmpipe.documents.model import read_documents
from llmpipe.errors import StageError, remake
from llmpipe.retrieval.arrays import read_array, read_rows
from llmpipe.retrieval.bm25 import Bm25, Bm25Settings
from llmpipe.retrieval.chunks import Chunk, read_chunks
from llmpipe.retrieval.embedder import EmbedderIdentity, read_identity
from llmpipe.retrieval.link_or_copy import link_or_copy
from llmpipe.retrieval.passages import Passages, write_passages
from llmpipe.retrieval.vectors import UNREAD_ROWS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]
    Rows = NDArray[np.int64]

MANIFEST = "index.json"
FORMAT = 3
"""2: words are split by `llmpipe.words`. 3: numbers are split from units; ``U.S.A.`` is a word."""
LENGTH_TOLERANCE = 1e-3
"""Allowed deviation from length one of a vector that should be normalized."""

Progress = Callable[[float, float | None, str], None]


class IndexSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How an index is built. ``bm25`` is None if words are not indexed."""

    factory: str = faiss_backend.AUTO
    ef_search: int | None = None
    nprobe: int | None = None
    bm25: Bm25Settings | None = Bm25Settings()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of ``index.json``. ``factory`` is the one that was built, not ``auto``."""

    format: int
    factory: str
    dimension: int
    chunks: int
    documents: int
    bm25: bool
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class Built:
    """An index that was just built.

    Attributes:
        manifest: the contents of ``index.json``.
        seconds: the time of each part of the work.
        recall: the share of the ten nearest vectors that it finds; None if the search is exact.
    """

    manifest: Manifest
    seconds: dict[str, float]
    recall: float | None


@dataclass(frozen=True, slots=True)
class OpenIndex:
    """The parts of an index, ready to be searched.

    Attributes:
        unread: sorted rows of passages that the embedder cannot read.
        written: when the manifest was written, in seconds since 1970.
    """

    manifest: Manifest
    identity: EmbedderIdentity
    vectors: VectorIndex
    bm25: Bm25 | None
    passages: Passages
    unread: Rows
    written: float


def build_index(
    embeddings: Path,
    out: Path,
    settings: IndexSettings,
    progress: Progress = lambda done, total, note: None,
) -> Built:
    """Build the index of an embeddings folder in the folder ``out``.

    Raises:
        StageError: the embeddings are inconsistent, or FAISS refuses the factory string.
    """
    out.mkdir(parents=True, exist_ok=True)
    clock = _Clock()
    identity = read_identity(embeddings / "embedder.json")
    vectors = load_vectors(embeddings / "vectors.npy", identity)
    total = len(vectors)
    read_rows(embeddings / UNREAD_ROWS, total, remake("embed"))  # checked here, copied unchanged
    index = faiss_backend.build(
        vectors,
        settings.factory,
        ef_search=settings.ef_search,
        nprobe=settings.nprobe,
        progress=lambda done: progress(done, total, "vectors"),
    )
    index.save(out / "vectors.faiss")
    clock.lap("vectors")
    recall = faiss_backend.recall(index, vectors) if index.approximate else None
    clock.lap("recall")
    if settings.bm25:
        texts = (chunk.embedded_text() for chunk in _chunks(embeddings, total))
        words = Bm25.build(texts, settings.bm25, lambda done: progress(done, total, "words"))
        words.save(out / "bm25")
        clock.lap("bm25")
    progress(0, None, "passages")
    documents = write_passages(
        out / "passages.sqlite",
        read_documents(embeddings / "documents.jsonl"),
        _chunks(embeddings, total),
    )
    clock.lap("passages")
    for name in ("embedder.json", "model.onnx", UNREAD_ROWS):
        if (embeddings / name).is_file():
            link_or_copy(embeddings / name, out)
    manifest = Manifest(
        format=FORMAT,
        factory=faiss_backend.resolve_factory(settings.factory, total),
        dimension=identity.dimension,
        chunks=total,
        documents=documents,
        bm25=settings.bm25 is not None,
        files=dict(_digests(out)),
    )
    write_json(out / MANIFEST, msgspec.to_builtins(manifest))
    clock.lap("digests")
    return Built(manifest, clock.laps, recall)


def open_index(folder: Path, *, verify: bool = True, threads: int = 1) -> OpenIndex:
    """Open an index; ``verify`` reads every file once to compare its digest.

    Raises:
        StageError: the folder is not an index, or a file was altered.
    """
    manifest = read_manifest(folder)
    if verify:
        _verify(folder, manifest)
    identity = read_identity(folder / "embedder.json")
    vectors = faiss_backend.open_index(folder / "vectors.faiss", threads)
    passages = Passages(folder / "passages.sqlite")
    bm25 = Bm25.open(folder / "bm25") if manifest.bm25 else None
    counts = {vectors.count, passages.count, bm25.count if bm25 else vectors.count}
    if counts != {manifest.chunks} or vectors.dimension != identity.dimension:
        raise StageError(
            f"{folder}: the parts of the index do not belong together",
            hint=remake("index"),
        )
    written = (folder / MANIFEST).stat().st_mtime
    unread = read_rows(folder / UNREAD_ROWS, manifest.chunks, remake("index"))
    return OpenIndex(manifest, identity, vectors, bm25, passages, unread, written)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an index.

    Raises:
        StageError: the folder is not an index, or has another format.
    """
    try:
        data = msgspec.json.decode((folder / MANIFEST).read_bytes())
        if isinstance(data, dict) and data.get("format") != FORMAT:
            raise StageError(
                f"{folder} is an index of format {data.get('format')}; this llmpipe reads {FORMAT}",
                hint=f"{remake('index')}, or use the llmpipe that made it",
            )
        return msgspec.convert(data, Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise StageError(f"{folder} is not an index: {error}") from None


def load_vectors(path: Path, identity: EmbedderIdentity) -> Vectors:
    """Memory-map the vectors of embeddings.

    Raises:
        StageError: they are not finite float32 rows of the embedder's dimension, or not of length
            one although the embedder normalizes.
    """
    import numpy as np

    vectors = read_array(path, "vectors", remake("embed"))
    if vectors.dtype != np.float32 or vectors.ndim != 2 or vectors.shape[1] != identity.dimension:
        raise StageError(
            f"{path} contains {vectors.dtype} of shape {vectors.shape}; "
            f"{identity.model} returns float32 rows of {identity.dimension}",
            hint=remake("embed"),
        )
    for begin in range(0, len(vectors), faiss_backend.BATCH):
        lengths = np.linalg.norm(vectors[begin : begin + faiss_backend.BATCH], axis=1)
        wrong = ~np.isfinite(lengths)
        if identity.normalize:
            wrong |= np.abs(lengths - 1) > LENGTH_TOLERANCE
        if wrong.any():
            row = int(wrong.argmax())
            raise StageError(
                f"{path}: the vector of row {begin + row} has length {lengths[row]}",
                hint=remake("embed"),
            )
    return np.asarray(vectors)


def _chunks(embeddings: Path, rows: int) -> Iterator[Chunk]:
    """Yield the chunks, and check that there are as many as vectors."""
    count = 0
    for count, chunk in enumerate(read_chunks(embeddings / "chunks.jsonl"), 1):  # noqa: B007
        yield chunk
    if count != rows:
        raise StageError(
            f"{embeddings} contains {count} chunks and {rows} vectors",
            hint=remake("embed"),
        )


class _Clock:
    """Measures the seconds of each part of the work."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._since = round(now - self._since, 3), now


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield every file in the folder except the manifest, with its SHA-256."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / MANIFEST:
            yield path.relative_to(folder).as_posix(), _digest(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(folder: Path, manifest: Manifest) -> None:
    for name, digest in manifest.files.items():
        try:
            found = _digest(folder / name)
        except OSError as error:
            raise StageError(f"{folder / name} cannot be read: {error.strerror}") from None
        if found != digest:
            raise StageError(
                f"{folder / name} is not the file that the index was built with",
                hint=f"it was altered; {remake('index')}",
            )
