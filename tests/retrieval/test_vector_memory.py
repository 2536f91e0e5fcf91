"""The vector cache: entries are permanent and shared, and damage costs only computing time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from llmpipe.errors import StoreError
from llmpipe.retrieval.embedder import EmbedderIdentity
from llmpipe.retrieval.vector_memory import VectorMemory, memory_file, text_key


def vectors(count: int, seed: int = 0) -> np.ndarray:
    """Return vectors of eight numbers."""
    return np.random.default_rng(seed).random((count, 8), np.float32)


def keys(count: int, prefix: str = "text") -> list[bytes]:
    """Return the keys of some texts."""
    return [text_key(f"{prefix} {i}") for i in range(count)]


def test_what_was_put_comes_back_to_the_bit(tmp_path: Path) -> None:
    """Another process finds more than one query's worth; unknown keys are skipped."""
    path = tmp_path / "embeddings" / "a.sqlite"
    rows = vectors(2000)
    with VectorMemory(path) as memory:
        memory.put(keys(2000), rows)
    with VectorMemory(path) as memory:
        asked = [*keys(2000), *keys(3, "other")]
        assert memory.known(asked) == set(keys(2000))
        found = memory.get(asked)
        assert len(found) == 2000
        assert all((found[key] == row).all() for key, row in zip(keys(2000), rows, strict=True))


WRITE = """
import sys
from pathlib import Path
import numpy as np
from llmpipe.retrieval.vector_memory import VectorMemory, text_key
with VectorMemory(Path(sys.argv[1])) as memory:
    for i in range(100):
        memory.put([text_key(f"{sys.argv[2]} {i}")], np.full((1, 8), i, np.float32))
"""


@pytest.mark.slow
def test_several_processes_write_at_once(tmp_path: Path) -> None:
    """Three writers and a reader do not block each other, and nothing is lost."""
    path = tmp_path / "a.sqlite"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE, str(path), name]) for name in ("a", "b", "c")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    with VectorMemory(path) as memory:
        for name in ("a", "b", "c"):
            assert memory.known(keys(100, name)) == set(keys(100, name))


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    """Not a database, or one with a damaged page: a warning, an empty cache, no error."""
    path = tmp_path / "a.sqlite"
    path.write_bytes(b"this is no database" * 100)
    told: list[str] = []
    with VectorMemory(path, told.append) as memory:
        assert memory.known(keys(5)) == set()
        memory.put(keys(500), vectors(500))
    assert len(told) == 1
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 16_384)
    with VectorMemory(path, told.append) as memory:
        assert memory.get(keys(500)) == {}
        assert memory.known(keys(500)) == set()
        memory.put(keys(3), vectors(3))
        assert memory.known(keys(5)) == set(keys(3))
    assert len(told) == 2
    assert str(path) in told[1]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A file in place of the folder is an error with its path."""
    (tmp_path / "embeddings").write_text("in the way")
    with pytest.raises(StoreError, match=r"embeddings/a\.sqlite cannot be used"):
        VectorMemory(tmp_path / "embeddings" / "a.sqlite")


def test_embedders_share_a_file_only_where_their_vectors_are_the_same(tmp_path: Path) -> None:
    """They differ by content, normalization, weights and address, not by label or prefixes."""
    base = EmbedderIdentity("onnx", "./minilm", "d1", 384, 256, "mean", normalize=True)

    def file(**changes: object) -> Path:
        fields = {name: getattr(base, name) for name in base.__struct_fields__}
        return memory_file(tmp_path, EmbedderIdentity(**{**fields, **changes}))

    assert file(model="pkg://x", query_prefix="query: ", passage_prefix="p: ") == file()
    others = [{"digest": "d2"}, {"weights": "w"}, {"normalize": False}, {"base_url": "http://x"},
              {"engine": "sentence-transformers"}, {"requested_dimension": 64}]  # fmt: skip
    assert len({file(), *(file(**other) for other in others)}) == len(others) + 1
