"""The folder that is searched: vectors, words, passages, and who embedded them.

It is made whole from embeddings every time, in their order, so that an index after an update
answers exactly as one made afresh; what an update saves is the embedding of chunks that stay as
they were. ``index.json`` holds the SHA-256 of every other file, and an index whose files are not
those is not opened.
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
"""2: words are those of `llmpipe.words`; 3: with numbers apart from their units, and ``U.S.A.``."""
LENGTH_TOLERANCE = 1e-3
"""How far from one the length of a vector may be that is said to be normalised."""

Progress = Callable[[float, float | None, str], None]


class IndexSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an index is made like. ``bm25`` is None where words are not indexed."""

    factory: str = faiss_backend.AUTO
    ef_search: int | None = None
    nprobe: int | None = None
    bm25: Bm25Settings | None = Bm25Settings()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What ``index.json`` says. ``factory`` is the one that was built, not ``auto``."""

    format: int
    factory: str
    dimension: int
    chunks: int
    documents: int
    bm25: bool
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class Built:
    """An index that was just made: what it says of itself, and what making it cost and reached.

    ``recall`` is the part of the ten nearest that it finds, None where it compares every vector.
    """

    manifest: Manifest
    seconds: dict[str, float]
    recall: float | None


@dataclass(frozen=True, slots=True)
class OpenIndex:
    """The parts of an index, ready to be searched.

    ``unread`` are the rows of the passages that the embedder cannot read, sorted; ``written`` is
    when its file was written, in seconds since 1970.
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
    """Make the index of an embeddings folder in the folder ``out``.

    Raises:
        StageError: the embeddings are not what they say, or FAISS refuses the factory string.
    """
    out.mkdir(parents=True, exist_ok=True)
    clock = _Clock()
    identity = read_identity(embeddings / "embedder.json")
    vectors = load_vectors(embeddings / "vectors.npy", identity)
    total = len(vectors)
    read_rows(embeddings / UNREAD_ROWS, total, remake("embed"))  # it is carried as it is
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
    """Open an index. ``verify`` reads every file once to compare its digest.

    Raises:
        StageError: it is no index, or one of its files has been altered.
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
    """Read what an index says of itself.

    Raises:
        StageError: the folder is no index, or one of a newer format.
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
        raise StageError(f"{folder} is no index: {error}") from None


def load_vectors(path: Path, identity: EmbedderIdentity) -> Vectors:
    """Map the vectors of embeddings into memory.

    Raises:
        StageError: they are not float32 rows of the embedder's dimension, finite, and of length one
            where the embedder normalises.
    """
    import numpy as np

    vectors = read_array(path, "vectors", remake("embed"))
    if vectors.dtype != np.float32 or vectors.ndim != 2 or vectors.shape[1] != identity.dimension:
        raise StageError(
            f"{path} holds {vectors.dtype} of shape {vectors.shape}; "
            f"{identity.model} gives float32 rows of {identity.dimension}",
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
                f"{path}: the vector of row {begin + row} has the length {lengths[row]}",
                hint=remake("embed"),
            )
    return np.asarray(vectors)


def _chunks(embeddings: Path, rows: int) -> Iterator[Chunk]:
    """Give the chunks, and make sure that there are as many as vectors."""
    count = 0
    for count, chunk in enumerate(read_chunks(embeddings / "chunks.jsonl"), 1):  # noqa: B007
        yield chunk
    if count != rows:
        raise StageError(
            f"{embeddings} holds {count} chunks and {rows} vectors",
            hint=remake("embed"),
        )


class _Clock:
    """Notes what each part of the work takes, in seconds."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._since = round(now - self._since, 3), now


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    """Give every file below the folder, but for the manifest, with its SHA-256."""
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
                f"{folder / name} is not the file that the index was made with",
                hint=f"it was altered; {remake('index')}",
            )
