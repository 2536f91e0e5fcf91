"""FAISS: the right index for a size, the nearest found, the same file every time, no crash."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from llmpipe.backends import faiss as backend
from llmpipe.backends.faiss import VectorIndex, best_first, build, open_index, resolve_factory
from llmpipe.errors import StageError

pytestmark = pytest.mark.heavy

Vectors = NDArray[np.float32]

EXACT = ("Flat",)
APPROXIMATE = (
    "HNSW32",
    "IVF16,Flat",
    "IVF16,SQ8",
    "PCA32,IVF16,SQ8",
    "NSG16",
    "SQ8",
    "IVF16,PQ8x4",
)


def clustered(count: int, dimension: int = 64, clusters: int = 40, seed: int = 0) -> Vectors:
    """Vectors of length one around so many centers, as those of texts are."""
    draw = np.random.default_rng(seed)
    centers = np.random.default_rng(99).standard_normal((clusters, dimension))
    noise = 0.5 * draw.standard_normal((count, dimension))
    vectors = centers[draw.integers(0, clusters, count)] + noise
    units: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return units


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    """Two thousand vectors."""
    return clustered(2000)


@pytest.fixture(scope="module")
def flat(vectors: Vectors) -> VectorIndex:
    """The index that compares them all."""
    return build(vectors, "Flat")


@pytest.mark.parametrize(
    ("count", "factory"),
    [
        (1, "Flat"),
        (100_000, "Flat"),
        (100_001, "HNSW32"),
        (2_000_000, "HNSW32"),
        (4_000_000, "IVF8000,SQ8"),
    ],
)
def test_auto_goes_by_the_number_of_vectors(count: int, factory: str) -> None:
    """Few are compared one by one; a factory string that is given stays."""
    assert resolve_factory("auto", count) == factory
    assert resolve_factory("PQ8", count) == "PQ8"


def test_flat_finds_what_numpy_finds(vectors: Vectors, flat: VectorIndex) -> None:
    """Rows and inner products, best first."""
    for query in clustered(5, seed=1):
        products = vectors @ query
        rows, scores = flat.search(query, 10)
        assert rows.tolist() == np.argsort(-products)[:10].tolist()
        assert scores == pytest.approx(products[rows], abs=1e-5)
    assert not flat.approximate


@pytest.mark.parametrize("factory", [*EXACT, *APPROXIMATE])
def test_a_saved_index_is_the_built_one(
    factory: str, vectors: Vectors, flat: VectorIndex, tmp_path: Path
) -> None:
    """Two builds give the same bytes; opened, it answers as before and gives its vectors back."""
    built = build(vectors, factory)
    for index, name in ((built, "a"), (build(vectors, factory), "b")):
        index.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    opened = open_index(tmp_path / "a")
    assert (opened.count, opened.dimension) == vectors.shape
    assert opened.approximate == (factory not in EXACT)
    query = clustered(1, seed=1)[0]
    for there, back in zip(built.search(query, 10), opened.search(query, 10), strict=True):
        assert there.tolist() == back.tolist()
    assert set(opened.search(query, 10)[0]) & set(flat.search(query, 10)[0])
    back = opened.vectors(np.array([7, 3]))
    assert (back * vectors[[7, 3]]).sum(axis=1) == pytest.approx([1, 1], abs=0.35)


@pytest.mark.parametrize("factory", [*EXACT, *APPROXIMATE])
@pytest.mark.parametrize("exact_rows", [0, 10_000])
def test_a_search_among_some_rows_finds_only_those(
    factory: str,
    exact_rows: int,
    vectors: Vectors,
    flat: VectorIndex,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By comparing them and by the index's own selection; also by those that have none."""
    monkeypatch.setattr(backend, "EXACT_ROWS", exact_rows)
    index = build(vectors, factory)
    rows = np.arange(0, 2000, 50)
    query = clustered(1, seed=1)[0]
    found, scores = index.search(query, 10, rows)
    assert len(found) == 10
    assert set(found) <= set(rows)
    assert list(scores) == sorted(scores, reverse=True)
    true = flat.search(query, 10, rows)[0]
    assert len(set(true) & set(found)) >= 6  # vectors that are kept coarsely cost some
    everything, _ = index.search(query, 100, rows)
    assert len(everything) <= len(rows)


def test_rare_rows_are_found_in_a_graph(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fewer rows a search may find, the wider it looks: one in two hundred are all met."""
    monkeypatch.setattr(backend, "EXACT_ROWS", 0)
    index = build(vectors, "HNSW32", ef_search=16)
    rows = np.arange(0, 2000, 200)
    assert sorted(index.search(clustered(1, seed=2)[0], 10, rows)[0]) == rows.tolist()


def test_recall_is_measured(vectors: Vectors, flat: VectorIndex) -> None:
    """One for an index that compares all, and what a hasty graph misses shows."""
    assert backend.recall(flat, vectors) == 1
    graph = backend.recall(build(vectors, "HNSW32"), vectors)
    hasty = backend.recall(build(vectors, "IVF64,Flat", nprobe=1), vectors)
    assert hasty < graph
    assert graph >= 0.98


def test_equal_vectors_come_by_row() -> None:
    """Twenty copies of one: the first of them, in their order."""
    copies = np.repeat(clustered(1), 20, axis=0)
    assert build(copies).search(copies[0], 5)[0].tolist() == [0, 1, 2, 3, 4]
    rows, _ = best_first(np.arange(6), np.array([1, 2, 1, 2, 0, 1], np.float32), 3)
    assert rows.tolist() == [1, 3, 0]


def test_a_single_vector() -> None:
    """More are asked for than there are."""
    one = clustered(1)
    assert build(one).search(one[0], 50)[0].tolist() == [0]


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("Flatt", "could not parse index string Flatt"),
        ("", "could not parse"),
        ("IVF16,PQ7", "should be a multiple of"),
        ("IVF5000,Flat", "Number of training points"),
        ("LSH", "METRIC_L2"),
        ("HNSW32_PQ8", "does not support the inner product"),
        ("IDMap,Flat", "use add_with_ids"),
        ("IVF16,PQ8x4fs", "vectors cannot be read from lists with fast scan"),
    ],
)
def test_a_factory_that_cannot_be_is_refused(factory: str, reason: str, vectors: Vectors) -> None:
    """By FAISS's own reason, without the place in its source, and with examples."""
    with pytest.raises(StageError, match="FAISS cannot build an index") as caught:
        build(vectors, factory)
    assert reason in caught.value.message
    assert ".cpp" not in caught.value.message
    assert "HNSW32" in (caught.value.hint or "")


def test_only_the_spelling_is_checked_beforehand() -> None:
    """Whether it fits the vectors is known when they are there."""
    assert backend.factory_problem("HNSW32") is None
    assert backend.factory_problem("IVF16,PQ7") is None
    assert "could not parse" in (backend.factory_problem("Flatt") or "")


@pytest.mark.parametrize("keep", [0, 10, 60, 5000])
def test_a_torn_file_is_a_message(keep: int, vectors: Vectors, tmp_path: Path) -> None:
    """Cut off anywhere, or claiming to hold more than memory does."""
    build(vectors).save(tmp_path / "index")
    whole = (tmp_path / "index").read_bytes()
    (tmp_path / "torn").write_bytes(whole[:keep])
    claim = bytearray(whole)
    claim[37:45] = (2**60).to_bytes(8, "little")  # the length of the array of vectors
    (tmp_path / "claim").write_bytes(claim)
    for name in ("torn", "claim", "missing"):
        with pytest.raises(StageError, match="cannot be read as a FAISS index"):
            open_index(tmp_path / name)


def test_threads_search_at_the_same_time(vectors: Vectors) -> None:
    """Each gets the answer to its own question."""
    index = build(vectors, "HNSW32")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda row: index.search(vectors[row], 1)[0][0], range(500)))
    assert found == list(range(500))
