"""The metric that a ``select`` stage goes by is one that its stage measures."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmpipe.errors import SpecError
from llmpipe.graph.compile import compile_spec
from llmpipe.spec.read import read_spec

SPEC = """\
version: 1
name: metrics
stages:
  sft:
    {{kind: train, base_model: ./base, data: ./rows.jsonl, axolotl: {{adapter: lora}},
     matrix: {{axolotl.learning_rate: [1.0e-4, 2.0e-4]}}}}
  dev: {{kind: evaluate, models: [sft, base], data: ./rows.jsonl, metrics: [loss, rouge_l]}}
  docs: {{kind: ingest, paths: [./rows.jsonl]}}
  chunks: {{kind: chunk, documents: docs, model: ./base, matrix: {{tokens: [100, 200]}}}}
  vectors: {{kind: embed, chunks: chunks, model: ./base}}
  index: {{kind: index, embeddings: vectors}}
  found: {{kind: evaluate_retrieval, indexes: [index], questions: ./rows.jsonl, modes: [dense]}}
  count: {{kind: command, run: x, inputs: {{i: sft}}, outputs: {{o: o.json}}}}
  best: {{kind: select, of: {of}, by: {by}, mode: min}}
"""


def compiled(folder: Path, of: str, by: str) -> None:
    """Compile a spec that chooses by a metric."""
    (folder / "base").mkdir()
    (folder / "base" / "config.json").write_text("{}")
    (folder / "rows.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    (folder / "spec.yaml").write_text(SPEC.format(of=of, by=by))
    compile_spec(read_spec(folder / "spec.yaml"))


@pytest.mark.parametrize(
    ("of", "by"),
    [
        ("sft", "dev.sft.loss"),
        ("sft", "dev.sft.loss.low"),
        ("sft", "dev.models.sft.rouge_l.mean"),
        ("sft", "dev.base.loss"),
        ("sft", "dev.replies.sft.cut"),
        ("index", "found.index.dense.ndcg@10"),
        ("sft", "count.anything.at.all"),
    ],
)
def test_metrics_that_are_measured(tmp_path: Path, of: str, by: str) -> None:
    """Whole, with their bounds, counts; what a command writes is not known before."""
    compiled(tmp_path, of, by)


@pytest.mark.parametrize(
    ("of", "by", "message", "hint"),
    [
        ("sft", "dev.sft.los", "dev has no metric 'sft.los'", "did you mean 'sft.loss'?"),
        ("sft", "dev.loss", "dev has no metric 'loss'", ""),
        ("sft", "dev.sft.bytes", "dev has no metric 'sft.bytes'", ""),
        ("sft", "dev.sft.exact_match", "dev has no metric 'sft.exact_match'", ""),
        ("sft", "dev.other.loss", "dev has no metric 'other.loss'", ""),
        ("index", "found.index.bm25.ndcg@10", "found has no metric 'index.bm25.ndcg@10'", "did you mean 'index.dense.ndcg@10'?"),
        ("index", "found.index.dense.ndcg@3", "found has no metric 'index.dense.ndcg@3'", ""),
    ],
)  # fmt: skip
def test_a_metric_that_nobody_measures(
    tmp_path: Path, of: str, by: str, message: str, hint: str
) -> None:
    """Hours of training came to nothing: it was looked for when all points had run."""
    with pytest.raises(SpecError) as caught:
        compiled(tmp_path, of, by)
    (problem,) = caught.value.problems
    assert problem.message == f"stages.best.by: {message}"
    assert problem.location is not None
    assert problem.location.line == 14
    assert problem.hint is not None
    assert hint in problem.hint


def test_limits_name_metrics_that_are_measured(tmp_path: Path) -> None:
    """A limit on something else would be noticed when all points had run."""
    by = "dev.sft.loss, at_most: {dev.sft.loss: 3}, at_least: {sft.rouge_l: 0, sft.rouge: 0}"
    with pytest.raises(SpecError) as caught:
        compiled(tmp_path, "sft", by)
    assert [problem.message for problem in caught.value.problems] == [
        "stages.best.at_most.dev.sft.loss: dev has no metric 'dev.sft.loss'",
        "stages.best.at_least.sft.rouge: dev has no metric 'sft.rouge'",
    ]
    assert {problem.location and problem.location.line for problem in caught.value.problems} == {14}
