"""The index folder: complete, reproducible, and refused if a file was altered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hashed_words import DIMENSION, HashedWords, chunk_of, document, write_embeddings

from llmpipe.backends import faiss as backend
from llmpipe.documents.model import Document
from llmpipe.errors import StageError
from llmpipe.retrieval.bm25 import Bm25Settings
from llmpipe.retrieval.index import FORMAT, IndexSettings, build_index, open_index

pytestmark = pytest.mark.heavy

DOCUMENTS = [document(f"d{n:02}", f"passage number {n} about {n % 5}") for n in range(40)]


def built(folder: Path, documents: list[Document] | None = None, **settings: object) -> Path:
    """Embeddings and their index in separate folders."""
    embeddings = write_embeddings(folder / "embeddings", documents or DOCUMENTS)
    build_index(embeddings, folder / "index", IndexSettings(**settings))  # type: ignore[arg-type]
    return folder / "index"


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file with its bytes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_it_stands_alone(tmp_path: Path) -> None:
    """It opens after it was moved and the embeddings were deleted, and contains everything."""
    index = built(tmp_path)
    shutil.move(index, tmp_path / "moved")
    shutil.rmtree(tmp_path / "embeddings")
    opened = open_index(tmp_path / "moved")
    assert opened.identity == HashedWords().identity
    assert opened.passages.count == opened.vectors.count == len(DOCUMENTS)
    assert opened.passages.document("d07") == DOCUMENTS[7]
    assert opened.bm25 is not None
    assert opened.bm25.settings == Bm25Settings()
    manifest = opened.manifest
    assert (manifest.factory, manifest.chunks, manifest.documents) == ("Flat", 40, 40)


@pytest.mark.parametrize("factory", ["auto", "HNSW32", "IVF4,SQ8"])
def test_two_builds_are_the_same_to_the_byte(factory: str, tmp_path: Path) -> None:
    """This holds for all of its files."""
    assert contents(built(tmp_path / "a", factory=factory)) == contents(
        built(tmp_path / "b", factory=factory)
    )


def test_an_altered_file_is_named(tmp_path: Path) -> None:
    """For a single changed bit in each; the check can be skipped for an index in the store."""
    index = built(tmp_path)
    names = sorted(set(contents(index)) - {"index.json"})
    assert {"vectors.faiss", "passages.sqlite", "embedder.json"} < set(names)
    for name in names:
        whole = (index / name).read_bytes()
        (index / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(
            StageError, match="not the file that the index was built with"
        ) as caught:
            open_index(index)
        assert name in caught.value.message
        (index / name).write_bytes(whole)
    (index / "vectors.faiss").unlink()
    with pytest.raises(StageError, match=r"vectors\.faiss cannot be read"):
        open_index(index)
    with pytest.raises(StageError, match=r"vectors\.faiss cannot be read"):
        open_index(index, verify=False)


@pytest.mark.parametrize("other", [FORMAT - 1, FORMAT + 1])
def test_what_is_no_index_or_another_one_is_refused(tmp_path: Path, other: int) -> None:
    """The message says what it is; for another format, it also says what to do."""
    with pytest.raises(StageError, match="is not an index"):
        open_index(tmp_path)
    index = built(tmp_path)
    manifest = json.loads((index / "index.json").read_text("utf-8"))
    (index / "index.json").write_text(json.dumps(manifest | {"format": other}))
    message = f"of format {other}; this llmpipe reads {FORMAT}"
    with pytest.raises(StageError, match=message) as caught:
        open_index(index)
    assert "--force" in (caught.value.hint or "")
    (index / "index.json").write_text("[]")
    with pytest.raises(StageError, match="is not an index"):
        open_index(index)


def test_parts_of_several_indexes_do_not_mix(tmp_path: Path) -> None:
    """Also without a comparison of digests."""
    index = built(tmp_path / "a")
    other = built(tmp_path / "b", DOCUMENTS[:3])
    shutil.copy(other / "passages.sqlite", index)
    with pytest.raises(StageError, match="do not belong together"):
        open_index(index, verify=False)


def test_an_onnx_file_comes_along(tmp_path: Path) -> None:
    """It is part of the embedder, and therefore of the index and of what is verified."""
    embeddings = write_embeddings(tmp_path / "embeddings", DOCUMENTS)
    (embeddings / "model.onnx").write_bytes(b"weights")
    build_index(embeddings, tmp_path / "index", IndexSettings())
    assert (tmp_path / "index" / "model.onnx").read_bytes() == b"weights"
    (tmp_path / "index" / "model.onnx").write_bytes(b"others")
    with pytest.raises(StageError, match=r"model\.onnx"):
        open_index(tmp_path / "index")


def test_without_words(tmp_path: Path) -> None:
    """No BM25 files are written."""
    index = built(tmp_path, bm25=None)
    assert open_index(index).bm25 is None
    assert not (index / "bm25").exists()


def test_the_settings_reach_the_index(tmp_path: Path) -> None:
    """A wide search of a graph finds what a narrow one misses; the language is stored."""
    embeddings = write_embeddings(tmp_path / "embeddings", DOCUMENTS)
    one_list, all_lists = (
        build_index(
            embeddings,
            tmp_path / f"probe{probe}",
            IndexSettings(factory="IVF8,Flat", nprobe=probe, bm25=Bm25Settings(language="german")),
        )
        for probe in (1, 8)
    )
    assert one_list.recall is not None
    assert one_list.recall < 1 == all_lists.recall
    bm25 = open_index(tmp_path / "probe1").bm25
    assert bm25 is not None
    assert bm25.settings.language == "german"


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros((40, 8), np.float32), r"float32 of shape \(40, 8\).* rows of 64"),
        (np.ones((40, DIMENSION)), "contains float64"),
        (np.full((40, DIMENSION), np.nan, np.float32), "row 0 has length nan"),
        (np.ones((40, DIMENSION), np.float32), "row 0 has length 8"),
        (np.full((39, DIMENSION), 1 / 8, np.float32), "40 chunks and 39 vectors"),
        (np.full((41, DIMENSION), 1 / 8, np.float32), "40 chunks and 41 vectors"),
        (np.array([{}] * 40), "cannot be read as vectors"),
    ],
)
def test_broken_embeddings_are_refused(vectors: np.ndarray, message: str, tmp_path: Path) -> None:
    """Wrong shape, dtype or length, values that are not finite, and pickles."""
    embeddings = write_embeddings(tmp_path / "embeddings", DOCUMENTS)
    np.save(embeddings / "vectors.npy", vectors, allow_pickle=True)
    with pytest.raises(StageError, match=message):
        build_index(embeddings, tmp_path / "index", IndexSettings())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.array([1.0, 2.0]), "contains float64 of shape"),
        (np.array([[1, 2]]), r"contains int64 of shape \(1, 2\)"),
        (np.array(["1"]), "not a list of integers"),
        (np.array([2, 1]), "rows from 0 to 39 in ascending order"),
        (np.array([1, 1]), "distinct rows"),
        (np.array([-1, 1]), "rows from 0 to 39"),
        (np.array([1, 40]), "rows from 0 to 39"),
        (np.array([{}]), "cannot be read as a list of rows"),
        (b"", "cannot be read as a list of rows"),
        (b"\x93NUMPY\x01\x00\x10\x00{'descr': (((", "cannot be read as a list of rows"),
        (b"PK\x03\x04 and no more", "cannot be read as a list of rows"),
    ],
)
def test_rows_that_are_none_of_the_index_are_refused(
    rows: np.ndarray | bytes, message: str, tmp_path: Path
) -> None:
    """When embeddings are indexed, and when an index is opened without verification."""
    embeddings = write_embeddings(tmp_path / "embeddings", DOCUMENTS)
    build_index(embeddings, tmp_path / "index", IndexSettings())
    for folder in (embeddings, tmp_path / "index"):
        if isinstance(rows, bytes):
            (folder / "unread.npy").write_bytes(rows)
        else:
            np.save(folder / "unread.npy", rows, allow_pickle=True)
    with pytest.raises(StageError, match=message) as caught:
        build_index(embeddings, tmp_path / "other", IndexSettings())
    assert "--force" in (caught.value.hint or "")
    with pytest.raises(StageError, match=message):
        open_index(tmp_path / "index", verify=False)


def test_damaged_words_are_refused(tmp_path: Path) -> None:
    """Also without a comparison of digests."""
    index = built(tmp_path)
    for path in sorted((index / "bm25").iterdir()):
        whole = path.read_bytes()
        for damaged in (b"", whole[:11], b"PK\x03\x04"):
            path.write_bytes(damaged)
            with pytest.raises(StageError, match="cannot be read as a BM25 index"):
                open_index(index, verify=False)
        path.write_bytes(whole)


def test_lengths_are_free_where_the_embedder_does_not_normalize(tmp_path: Path) -> None:
    """Longer vectors then count for more."""
    embeddings = write_embeddings(
        tmp_path / "embeddings", DOCUMENTS, embedder=HashedWords(normalize=False)
    )
    vectors = np.load(embeddings / "vectors.npy")
    vectors[1] = 3 * vectors[0]
    np.save(embeddings / "vectors.npy", vectors)
    build_index(embeddings, tmp_path / "index", IndexSettings())
    rows, scores = open_index(tmp_path / "index").vectors.search(vectors[0], 2)
    assert rows.tolist() == [1, 0]
    assert scores == pytest.approx([3, 1], abs=1e-5)


def test_several_chunks_of_a_document(tmp_path: Path) -> None:
    """Rows are line numbers of chunks.jsonl."""
    whole = document("a", "first half second half")
    parts = [
        chunk_of(whole, id="1", text=whole.text[:10], end=10),
        chunk_of(whole, id="2", text=whole.text[11:], start=11),
    ]
    embeddings = write_embeddings(tmp_path / "embeddings", [whole], parts)
    made = build_index(embeddings, tmp_path / "index", IndexSettings())
    assert (made.manifest.chunks, made.manifest.documents) == (2, 1)
    assert open_index(tmp_path / "index").passages.chunks([1, 0]) == parts[::-1]


def test_progress_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Part by part, up to the total."""
    monkeypatch.setattr(backend, "BATCH", 16)
    embeddings = write_embeddings(tmp_path / "embeddings", DOCUMENTS)
    told: list[tuple[float, float | None, str]] = []
    built = build_index(
        embeddings, tmp_path / "index", IndexSettings(), lambda *told_now: told.append(told_now)
    )
    assert [done for done, _, note in told if note == "vectors"] == [16, 32, 40]
    assert {"vectors", "bm25", "passages", "digests"} <= built.seconds.keys()
