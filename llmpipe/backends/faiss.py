"""Find the nearest of many vectors with FAISS: build an index, keep it in a file, search it.

Which index suits how many vectors is `resolve_factory`'s to say, unless a factory string of
FAISS's own is given. The measure is always the inner product, which is the cosine where vectors
have length one; of a model that does not normalise, longer vectors count for more, as it means it.

An index is built on one thread: with several, an HNSW index has another graph each time. Opened,
it stays on disk and is mapped into memory where its type allows that. FAISS's reader is not proof
against hostile files: check a file's digest before opening it.
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
"""Vectors that are compared one by one: a few milliseconds for a question, and never a miss."""
HNSW_UP_TO = 2_000_000
"""Vectors that are held whole in a graph; above, they are held as one byte a number in lists.

By product quantisation (`PQ48`) they would take a sixth of that, and most of the ten nearest would
be missed unless the whole vectors are kept beside; `benchmarks.rag` measures both.
"""
EF_CONSTRUCTION = 200
EF_SEARCH = 64
LISTS_PROBED, LEAST_LISTS = 1 / 32, 8
"""How many of an IVF index's lists a search looks into unless told: a part, and never fewer."""
EXACT_ROWS = 10_000
"""A search among no more rows than this compares them all, whatever the index."""
TABLES = 2**31
"""Bytes that an index may take beside what its file holds: tables of distances made beforehand."""
SEED = 1234
BATCH = 20_000


def resolve_factory(factory: str, count: int) -> str:
    """Give the factory string that ``auto`` stands for with so many vectors."""
    if factory != AUTO:
        return factory
    if count <= FLAT_UP_TO:
        return "Flat"
    if count <= HNSW_UP_TO:
        return "HNSW32"
    return f"IVF{4 * math.isqrt(count)},SQ8"


def factory_problem(factory: str) -> str | None:
    """Say what FAISS finds wrong with the spelling of a factory string, whatever the vectors."""
    import faiss

    try:
        faiss.index_factory(64, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        reason = _reason(error)
        return reason if "could not parse" in reason else None
    return None


class VectorIndex:
    """Vectors by row, to be searched by another one. Safe to use from several threads."""

    def __init__(self, index: Any, threads: int = 1) -> None:
        self._index = index
        self._threads = threads

    @property
    def count(self) -> int:
        """How many vectors there are."""
        return int(self._index.ntotal)

    @property
    def dimension(self) -> int:
        """How many numbers a vector has."""
        return int(self._index.d)

    @property
    def approximate(self) -> bool:
        """Whether a search can miss one of the nearest."""
        import faiss

        return not isinstance(faiss.downcast_index(self._index), faiss.IndexFlat)

    def search(self, vector: Vectors, k: int, rows: Rows | None = None) -> tuple[Rows, Scores]:
        """Give the rows with the largest inner products and these, best first, ties by row.

        ``rows`` (sorted) restricts the search to some rows.
        """
        import faiss

        faiss.omp_set_num_threads(self._threads)  # a setting of the calling thread alone
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
            except RuntimeError:  # a type of index whose search cannot be restricted
                return self._compare(vector, k, rows)
        there = found[0] >= 0
        return best_first(found[0][there], scores[0][there], k)

    def vectors(self, rows: Rows) -> Vectors:
        """Give the vectors of some rows, as exactly as the index holds them."""
        found: Vectors = self._index.reconstruct_batch(rows)
        return found

    def save(self, path: Path) -> None:
        """Write the index to a file."""
        import faiss

        faiss.write_index(self._index, str(path))

    def _compare(self, vector: Vectors, k: int, rows: Rows) -> tuple[Rows, Scores]:
        """Search by comparing every one of the rows."""
        import numpy as np

        parts = [rows[begin : begin + BATCH] for begin in range(0, len(rows), BATCH)]
        scores = [self.vectors(part) @ vector for part in parts]
        return best_first(rows, np.concatenate(scores or [np.empty(0, np.float32)]), k)


def best_first(rows: Rows, scores: Scores, k: int) -> tuple[Rows, Scores]:
    """Give the ``k`` rows with the highest scores and these, best first, ties by row."""
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

    ``ef_search`` is how many candidates a search of an HNSW index keeps in view, ``nprobe`` how
    many lists one of an IVF index looks into; kinds of index without them take no notice.

    Raises:
        StageError: FAISS cannot make this index of these vectors.
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
            lists.make_direct_map()  # so that vectors can be given back by row
    except RuntimeError as error:
        raise _refused(factory, error, len(vectors)) from None
    return VectorIndex(index)


def open_index(path: Path, threads: int = 1) -> VectorIndex:
    """Open an index that `VectorIndex.save` wrote; its vectors stay in the file.

    Raises:
        StageError: the file cannot be read as an index.
    """
    import faiss

    try:
        # No part of an index is larger than its file: a torn one must not ask for all the memory.
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
    """Give the part of the true ``k`` nearest that the index finds, for vectors of its own."""
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
        raise _refused(factory, ValueError("it does not know the inner product"))
    lists = faiss.try_extract_index_ivf(index)
    if lists and isinstance(faiss.downcast_index(lists), faiss.IndexIVFFastScan):
        # Read from a file, it ends the process when it is asked for a vector (1.15.1).
        raise _refused(factory, ValueError("lists with fast scan cannot give vectors back"))
    return index


def _refused(factory: str, error: Exception, count: int | None = None) -> StageError:
    vectors = "" if count is None else f" of {count} vectors"
    return StageError(
        f"FAISS cannot make an index {factory!r}{vectors}: {_reason(error)}",
        hint=f"`factory: {AUTO}` chooses by size; others are, for example: {EXAMPLES}",
    )


def _reason(error: Exception) -> str:
    """Give the message of FAISS's error, less the place in its source that it names."""
    text = str(error) or type(error).__name__
    return re.split(r"\.(?:cpp|h):\d+: ", text)[-1].removeprefix("Error: ")


def _hnsw(index: Any) -> Any | None:
    """Give the graph of an HNSW index, also where the vectors are transformed first."""
    import faiss

    inner = faiss.downcast_index(index)
    if isinstance(inner, faiss.IndexPreTransform):
        return _hnsw(inner.index)
    return inner.hnsw if isinstance(inner, faiss.IndexHNSW) else None


def _sample(vectors: Vectors, lists: int) -> Vectors:
    """Draw the vectors that an index is trained on: as many as k-means makes use of."""
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
    """Give the parameters of a search among so many selected rows.

    The fewer they are, the wider an approximate search must look to meet as many of them.
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
