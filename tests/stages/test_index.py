"""The index stage: an artifact that can be searched, its metrics, and what the config may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hashed_words import HashedWords, document, write_embeddings

from llmpipe.contracts import Artifact, StageContext
from llmpipe.errors import StageError
from llmpipe.retrieval.search import Retriever
from llmpipe.stages.index import Index, IndexConfig

DOCUMENTS = [document(f"d{n:02}", f"passage {n} about topic {n % 7}") for n in range(60)]


def config(**fields: Any) -> IndexConfig:
    """A config with these fields."""
    return IndexConfig(kind="index", embeddings="vectors", **fields)


def context(root: Path, settings: IndexConfig) -> StageContext[IndexConfig]:
    """A stage that indexes sixty passages."""
    embeddings = write_embeddings(root / "embeddings", DOCUMENTS)
    out, work = root / "out", root / "work"
    out.mkdir()
    work.mkdir()
    inputs = {"embeddings": Artifact(embeddings, "embeddings", "", "vectors")}
    return StageContext(settings, "index", inputs, out, work, work, work, root, threads=1)


@pytest.mark.heavy
def test_the_artifact_can_be_searched(tmp_path: Path) -> None:
    """By meaning and by words; the metrics say what it is and what it cost."""
    result = Index.run(context(tmp_path, config()))
    retriever = Retriever.open(result.outputs["index"], HashedWords())
    assert retriever.search("passage 8 about topic 1", k=1)[0].chunk.document == "d08"
    metrics = dict(result.metrics)
    assert metrics.pop("bytes") == sum(
        path.stat().st_size for path in result.outputs["index"].rglob("*") if path.is_file()
    )
    assert metrics.pop("seconds").keys() == {"vectors", "recall", "bm25", "passages", "digests"}
    assert metrics == {"chunks": 60, "documents": 60, "dimension": 64, "factory": "Flat"}
    assert result.summary == "60 chunks of 60 documents, Flat"


@pytest.mark.heavy
def test_an_approximate_index_says_what_it_finds(tmp_path: Path) -> None:
    """Measured on its own vectors."""
    result = Index.run(context(tmp_path, config(factory="HNSW32", bm25=False)))
    assert result.metrics["recall_at_10"] == 1.0
    assert result.summary == "60 chunks of 60 documents, HNSW32, finds 100.0% of the ten nearest"


@pytest.mark.heavy
def test_a_factory_that_cannot_be_is_a_message(tmp_path: Path) -> None:
    """What only the vectors show is found when they are there."""
    with pytest.raises(StageError, match="should be a multiple of"):
        Index.run(context(tmp_path, config(factory="IVF4,PQ7")))


@pytest.mark.heavy
def test_a_misspelled_factory_is_found_before_anything_runs(tmp_path: Path) -> None:
    """An hour of embedding must not end in it."""
    (finding,) = Index.preflight(config(factory="Flatt"), tmp_path, tmp_path)
    assert finding.field == ("factory",)
    assert "could not parse index string Flatt" in finding.message
    assert "HNSW32" in (finding.hint or "")
    for factory in ("auto", "Flat", "OPQ48_384,IVF4096,PQ48"):
        assert Index.preflight(config(factory=factory), tmp_path, tmp_path) == []


def test_settings_without_effect_are_problems() -> None:
    """Those of a kind of index that the factory is not; `auto` may become either."""
    assert Index.problems(config(ef_search=64, nprobe=8)) == []
    assert Index.problems(config(factory="HNSW32", ef_search=64)) == []
    assert Index.problems(config(factory="IVF64_HNSW32,Flat", nprobe=4)) == []
    assert Index.problems(config(factory="Flat", ef_search=64)) == [
        (("ef_search",), "has no effect: Flat is not of type HNSW")
    ]
    assert Index.problems(config(factory="HNSW32", nprobe=8)) == [
        (("nprobe",), "has no effect: HNSW32 is not of type IVF")
    ]


def test_only_what_is_used_counts_as_a_tool() -> None:
    """Without words, a new version of bm25s changes nothing."""
    assert Index.tools(config()) == ("faiss-cpu", "bm25s", "regex", "PyStemmer")
    assert Index.tools(config(stemming=False)) == ("faiss-cpu", "bm25s", "regex")
    assert Index.tools(config(bm25=False)) == ("faiss-cpu",)
