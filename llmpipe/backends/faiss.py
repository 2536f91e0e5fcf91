"""Build, save and search vector indexes with FAISS.

`resolve_factory` chooses the index type by the number of vectors, unless a FAISS factory string is
given. The metric is always the inner product. For vectors of length one it equals the cosine; for
a model that does not normalize, longer vectors count for more, as intended.

An index is built on one thread, because several threads give a different HNSW graph each time. An
opened index stays on disk and is memory-mapped if its type allows it. FAISS's reader is not safe
against malicious files: check a file's digest before opening it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.errors import StageError, remake

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]
    Rows = NDArray[np.int64]
    Scores = NDArray[np.float32]

AUTO = "auto"
EXAMPLES = "Flat, HNSW32, IVF1024,Flat, IVF4096,SQ8, OPQ48_384,IVF4096,PQ48"
FLAT_UP_TO = 100_000
"""The number of vectors up to which a search compares all: exact, and a few milliseconds."""
HNSW_UP_TO = 2_000_000
"""The number of vectors up to which a graph holds them in full; above, lists hold one byte a value.

Product quantization (`PQ48`) would take a sixth of that, but miss most of the ten nearest vectors
unless the full vectors are kept as well; `benchmarks.rag` measures both.
"""
EF_CONSTRUCTION = 200
EF_SEARCH = 64
LISTS_PROBED, LEAST_LISTS = 1 / 32, 8
"""The default share of an IVF index's lists that a search probes, and their minimum number."""
EXACT_ROWS = 10_000
"""The number of rows up to which a restricted search compares them all, whatever the index."""
TABLES = 2**31
"""Bytes that an index may take besides its file, for precomputed tables of distances."""
SEED = 1234
BATCH = 20_000


def resolve_factory(factory: str, count: int) -> str:
    """Return the factory string, choosing one by the number of vectors for ``auto``."""
    if factory != AUTO:
        return factory
    if count <= FLAT_UP_TO:
        return "Flat"
    if count <= HNSW_UP_TO:
        return "HNSW32"
    return f"IVF{4 * math.isqrt(count)},SQ8"


def factory_problem(factory: str) -> str | None:
    """Return the syntax error that FAISS finds in a factory string, if any."""
    import faiss

    try:
        faiss.index_factory(64, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        reason = _reason(error)
        return reason if "could not parse" in reason else None
    return None


class VectorIndex:
    """A searchable index of vectors by row. Safe to use from several threads."""

    def __init__(self, index: Any, threads: int = 1) -> None:
        self._index = index
        self._threads = threads

    @property
    def count(self) -> int:
        """The number of vectors."""
        return int(self._index.ntotal)

    @property
    def dimension(self) -> int:
        """The dimension of a vector."""
        return int(self._index.d)

    @property
    def approximate(self) -> bool:
        """Whether a search can miss one of the nearest vectors."""
        import faiss

        return not isinstance(faiss.downcast_index(self._index), faiss.IndexFlat)

    def search(self, vector: Vectors, k: int, rows: Rows | None = None) -> tuple[Rows, Scores]:
        """Return the rows with the largest inner products, and these; best first, ties by row.

        ``rows`` (sorted) restricts the search to these rows.
        """
        import faiss

        faiss.omp_set_num_threads(self._threads)  # applies only to the calling thread
        if rows is None:
            scores, found = self._index.search(vector[None, :], min(k, self.count))
        elif self.approximate and len(rows) <= EXACT_ROWS:
            return self._compare(vector, k, rows)
        else:
            try:
                selected = _restricted(self._index, _selector(rows, self.count), len(rows))
                scores, found = self._index.search(
                    vector[None, :], min(k, len(rows)), params=selected
                )
            except RuntimeError:  # this index type does not support restricted searches
                return self._compare(vector, k, rows)
        there = found[0] >= 0
        return best_first(found[0][there], scores[0][there], k)

    def vectors(self, rows: Rows) -> Vectors:
        """Return the vectors of some rows, in the precision of the index."""
        found: Vectors = self._index.reconstruct_batch(rows)
        return found

    def save(self, path: Path) -> None:
        """Write the index to a file."""
        import faiss

        faiss.write_index(self._index, str(path))

    def _compare(self, vector: Vectors, k: int, rows: Rows) -> tuple[Rows, Scores]:
        """Search by comparing all given rows."""
        import numpy as np

        parts = [rows[begin : begin + BATCH] for begin in range(0, len(rows), BATCH)]
        scores = [self.vectors(part) @ vector for part in parts]
        return best_first(rows, np.concatenate(scores or [np.empty(0, np.float32)]), k)


def best_first(rows: Rows, scores: Scores, k: int) -> tuple[Rows, Scores]:
    """Return the ``k`` rows with the highest scores and their scores, best first, ties by row."""
    import numpy as np

    if k < len(rows):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        rows, scores = rows[scores >= least], scores[scores >= least]
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]


def build(
    vectors: Vectors,
    factory: str = AUTO,
    *,
    ef_search: int | None = None,
    nprobe: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> VectorIndex:
    """Build an index of vectors, row by row. The same vectors give the same index, to the byte.

    Args:
        vectors: The vectors, one a row.
        factory: A FAISS factory string, or ``auto``.
        ef_search: The number of candidates in a search of an HNSW index; others ignore it.
        nprobe: The number of lists that a search of an IVF index probes; others ignore it.
        progress: Called with the number of vectors added so far.

    Raises:
        StageError: FAISS cannot build this index from these vectors.
    """
    import faiss
    import numpy as np

    faiss.omp_set_num_threads(1)
    index = _made(resolve_factory(factory, len(vectors)), vectors.shape[1])
    graph, lists = _hnsw(index), faiss.try_extract_index_ivf(index)
    if graph is not None:
        graph.efConstruction, graph.efSearch = EF_CONSTRUCTION, ef_search or EF_SEARCH
    try:
        if not index.is_trained:
            index.train(_sample(vectors, lists.nlist if lists else 0))
        for begin in range(0, len(vectors), BATCH):
            index.add(np.ascontiguousarray(vectors[begin : begin + BATCH]))
            progress(index.ntotal)
        if lists:
            probed = nprobe or max(LEAST_LISTS, math.ceil(lists.nlist * LISTS_PROBED))
            lists.nprobe = min(probed, lists.nlist)
            lists.make_direct_map()  # so that `vectors` can read them by row
    except RuntimeError as error:
        raise _refused(factory, error, len(vectors)) from None
    return VectorIndex(index)


def open_index(path: Path, threads: int = 1) -> VectorIndex:
    """Open an index that `VectorIndex.save` wrote; its vectors stay in the file.

    Raises:
        StageError: The file cannot be read as an index.
    """
    import faiss

    try:
        # No part of an index is larger than its file, so a corrupt one cannot claim all memory.
        size = path.stat().st_size
        faiss.set_deserialization_vector_byte_limit(size + TABLES)
        faiss.set_deserialization_loop_limit(size)
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except (OSError, RuntimeError, MemoryError) as error:
        raise StageError(
            f"{path} cannot be read as a FAISS index: {_reason(error)}",
            hint=remake("index"),
        ) from None
    return VectorIndex(index, threads)


def recall(index: VectorIndex, vectors: Vectors, k: int = 10, queries: int = 200) -> float:
    """Return the share of the true ``k`` nearest that the index finds, for its own vectors."""
    import numpy as np

    drawn = np.random.default_rng(SEED).choice(
        len(vectors), min(queries, len(vectors)), replace=False
    )
    asked = np.asarray(vectors[np.sort(drawn)])
    scores = np.concatenate(
        [asked @ vectors[begin : begin + BATCH].T for begin in range(0, len(vectors), BATCH)],
        axis=1,
    )
    rows = np.arange(len(vectors))
    shares = []
    for vector, exact in zip(asked, scores, strict=True):
        true, _ = best_first(rows, exact, k)
        found, _ = index.search(vector, k)
        shares.append(len(np.intersect1d(true, found)) / len(true))
    return float(np.mean(shares))


def _made(factory: str, dimension: int) -> Any:
    import faiss

    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise _refused(factory, error) from None
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise _refused(factory, ValueError("it does not support the inner product"))
    lists = faiss.try_extract_index_ivf(index)
    if lists and isinstance(faiss.downcast_index(lists), faiss.IndexIVFFastScan):
        # Read from a file, it crashes the process when a vector is read from it (1.15.1).
        raise _refused(factory, ValueError("vectors cannot be read from lists with fast scan"))
    return index


def _refused(factory: str, error: Exception, count: int | None = None) -> StageError:
    vectors = "" if count is None else f" of {count} vectors"
    return StageError(
        f"FAISS cannot build an index {factory!r}{vectors}: {_reason(error)}",
        hint=f"`factory: {AUTO}` chooses by size; others are, for example: {EXAMPLES}",
    )


def _reason(error: Exception) -> str:
    """Return the message of FAISS's error without the place in its source."""
    text = str(error) or type(error).__name__
    return re.split(r"\.(?:cpp|h):\d+: ", text)[-1].removeprefix("Error: ")


def _hnsw(index: Any) -> Any | None:
    """Return the graph of an HNSW index, also if the vectors are transformed first."""
    import faiss

    inner = faiss.downcast_index(index)
    if isinstance(inner, faiss.IndexPreTransform):
        return _hnsw(inner.index)
    return inner.hnsw if isinstance(inner, faiss.IndexHNSW) else None


def _sample(vectors: Vectors, lists: int) -> Vectors:
    """Return a random sample of vectors to train an index on, as many as k-means uses."""
    import numpy as np

    size = min(len(vectors), max(64 * lists, 65_536))
    drawn = np.random.default_rng(SEED).choice(len(vectors), size, replace=False)
    return np.ascontiguousarray(vectors[np.sort(drawn)])


def _selector(rows: Rows, count: int) -> Any:
    import faiss
    import numpy as np

    wanted = np.zeros(count, dtype=bool)
    wanted[rows] = True
    takes: Any = faiss  # whose stubs do not know what its Python layer takes
    return takes.IDSelectorBitmap(np.packbits(wanted, bitorder="little"))


def _restricted(index: Any, selector: Any, rows: int) -> Any:
    """Return the search parameters for a selection of rows.

    The fewer rows are selected, the wider an approximate search must look to find as many of them.
    """
    import faiss

    takes: Any = faiss  # whose stubs do not know what its Python layer takes
    inner = faiss.downcast_index(index)
    wider = max(1, inner.ntotal / max(1, rows))
    if isinstance(inner, faiss.IndexPreTransform):
        nested = _restricted(inner.index, selector, rows)
        return takes.SearchParametersPreTransform(index_params=nested)
    if isinstance(inner, faiss.IndexRefine):
        nested = _restricted(inner.base_index, selector, rows)
        return takes.IndexRefineSearchParameters(k_factor=inner.k_factor, base_index_params=nested)
    if isinstance(inner, faiss.IndexIVF):
        probed = min(inner.nlist, math.ceil(inner.nprobe * wider))
        return takes.SearchParametersIVF(sel=selector, nprobe=probed)
    if isinstance(inner, faiss.IndexHNSW):
        return takes.SearchParametersHNSW(
            sel=selector, efSearch=math.ceil(inner.hnsw.efSearch * wider)
        )
    return takes.SearchParameters(sel=selector)
