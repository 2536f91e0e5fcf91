"""The benchmark of retrieval, small enough for every test run and without its peers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.rag import corpus
from benchmarks.rag.clustered import write_clustered
from benchmarks.rag.edits import edit
from benchmarks.rag.results import Target

ROOT = Path(__file__).parents[2]


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the benchmark as its users do."""
    command = [sys.executable, "-m", "benchmarks.rag", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def measured(tmp_path: Path, name: str, *arguments: str) -> dict[str, Any]:
    """Run one measurement and return its figures."""
    file = tmp_path / "figures.json"
    once = ("--rounds", "1", "--threads", "1")
    result = bench("--only", name, "--json", file, *once, *arguments)
    assert result.returncode == 0, result.stderr
    assert "| " in result.stdout
    figures: dict[str, Any] = json.loads(file.read_text())
    return figures.get(name, figures)


@pytest.mark.slow
def test_the_documents_are_real_and_drawn_by_a_seed() -> None:
    """No two alike, the questions of the FAQ among them; an edit is of one in 100."""
    passages = corpus.draw(1000)
    assert passages == corpus.draw(1000)
    assert len({p.id for p in passages}) == len({p.text for p in passages}) == 1000
    assert len(corpus.questions(passages, 1000)) > 450
    change = edit(passages, 0)
    assert [len(change.changed), len(change.added), len(change.deleted)] == [5, 3, 2]
    after = change.apply(passages)
    before = {p.text for p in passages}
    assert len(after) == 1001
    assert sum(p.text not in before for p in after) == 8


def test_synthetic_vectors_lie_in_clusters(tmp_path: Path) -> None:
    """Of length one, the same every time, and near to others of their cluster alone."""
    import numpy as np

    vectors, queries = map(np.load, write_clustered(tmp_path, 1000, 5))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    near = np.sort(queries @ vectors.T, axis=1)
    assert near[:, -10:].min() > 0.4 > near[:, : 1000 // 2].max()
    again, _ = map(np.load, write_clustered(tmp_path, 1000, 5))
    assert (vectors == again).all()


def test_a_target_says_whether_it_is_met() -> None:
    """On either side, and in words."""
    assert Target("ratio", 0.97, least=0.95).met
    assert not Target("ratio", 0.94, least=0.95).met
    assert Target("ms", 31, most=30).line() == "- ms: 31 (target ≤ 30): **missed**"


@pytest.mark.heavy
def test_index_and_search_have_their_figures(tmp_path: Path) -> None:
    """Both build, both search, and what the graph finds is held against all vectors."""
    found = measured(tmp_path, "vector_search", "--vectors", "500", "--queries", "5")
    for factory in ("Flat", "HNSW32"):
        figures = found[factory]
        assert figures["ratio"] == figures["search"]["llmpipe"] / figures["search"]["FAISS"] > 0
    assert found["recall_at_10"] == {"llmpipe": 1, "FAISS": 1}
    assert [factory.partition(",")[2] for factory in found["compressed"]] == ["SQ8", "PQ48"]
    assert found["compressed"]["IVF88,SQ8"]["recall_at_10"] > 0.5
    assert len(found["targets"]) == 3
    assert len(found["load_average"]) == 2


@pytest.mark.heavy
def test_an_update_costs_what_changed(tmp_path: Path) -> None:
    """Through the pipeline: only what is new is embedded, and no answer differs."""
    found = measured(tmp_path, "update", "--int8", "--documents", "8", "--queries", "3")
    assert (found["embedded"], found["surplus"]) == ([3], [0])
    assert found["chunks"] == 8
    same = {"different": 0, "ordered_otherwise": 0}
    assert found["compared"] == {"dense": same, "bm25": same, "hybrid": same}
    assert found["seconds"]["vectors"].keys() == {"fresh", "update"}


@pytest.mark.heavy
def test_answers_alone_and_under_load(tmp_path: Path) -> None:
    """Every step has its time; no request is refused, and a slot is given up."""
    sizes = ("--chunks", "8", "--queries", "2", "--answers", "1")
    clients = ("--clients", "2", "--searches", "2", "--asked", "1")
    found = measured(tmp_path, "latency,load", "--int8", *sizes, *clients)
    alone, load = found["latency"], found["load"]
    assert min(alone["medians"].values()) > 0
    assert [len(load["seconds"][kind]) for kind in ("search", "answer", "failed")] == [4, 2, 0]
    assert len(load["megabytes"]) == 3


def test_what_cannot_be_measured_is_said_at_once(tmp_path: Path) -> None:
    """A wrong folder for the peers, a measurement that does not exist: nothing is measured."""
    result = bench("--peers", tmp_path, "--workspace", tmp_path / "work")
    assert (result.returncode, result.stdout) == (2, "")
    assert f"not installed: {tmp_path}/bin/python" in result.stderr
    assert "there is no measurement speed" in bench("--only", "speed").stderr
    assert not (tmp_path / "work").exists()
