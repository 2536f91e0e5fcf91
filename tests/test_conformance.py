"""What every stage kind must keep: the suite of `llmpipe.testing` over all of our own."""

from __future__ import annotations

from pathlib import Path

import pytest
from kind_sources import differences

from llmpipe.registry import KINDS, stage_class
from llmpipe.spec.schema import stale_schemas, strict_schema
from llmpipe.testing import StageConformance

CONFIGS = {
    "bundle": (
        {"server": "ollama", "model": "gguf.q8_0"},
        {"server": "vllm", "model": "sft", "name": "n", "context": 512},
    ),
    "chunk": ({"documents": "docs"},),
    "command": (
        {"run": "cat ${inputs.i} > ${outputs.o}", "inputs": {"i": "./a"}, "outputs": {"o": "o"}},
    ),
    "curate": (
        {
            "data": ["./a.jsonl", "./b.jsonl"],
            "columns": ["text"],
            "steps": [
                {"step": "near_duplicates"},
                {"step": "decontaminate", "against": ["dataset.test"]},
            ],
        },
    ),
    "evaluate": ({"models": ["./m.gguf"], "data": "./rows.jsonl", "metrics": ["exact_match"]},),
    "evaluate_retrieval": ({"indexes": ["index"], "questions": "./questions.jsonl"},),
    "embed": ({"chunks": "chunks", "model": "./model"},),
    "export": ({"model": "sft", "quantize": ["q8_0"]},),
    "export_adapter": ({"adapter": "sft"},),
    "format": ({"data": "./rows.jsonl", "to": "messages"},),
    "generate": (
        {
            "method": "evol-instruct",
            "teacher": {"engine": "openai", "model": "m", "base_url": "http://h/v1"},
            "seeds": "./seeds.jsonl",
            "count": 9,
        },
    ),
    "import_gguf": ({"gguf": "./base.gguf"},),
    "index": ({"embeddings": "vectors"},),
    "ingest": ({"paths": ["./docs/*.md"]},),
    "merge": ({"adapter": "sft"},),
    "rag": ({"index": "index", "generator": {"engine": "llama.cpp", "model": "./m.gguf"}},),
    "select": ({"of": "sft", "by": "scores.exact_match", "mode": "max"},),
    "serve": ({"model": "./m.gguf"},),
    "train": ({"base_model": "./model", "data": "./rows.jsonl", "axolotl": {"adapter": "lora"}},),
}
"""A way to use each kind whose ports and fingerprint look at nothing but the config."""

for _kind in KINDS:
    _members = {"stage": stage_class(_kind), "configs": CONFIGS[_kind]}
    globals()[f"Test_{_kind}"] = type(f"Test_{_kind}", (StageConformance,), _members)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_kinds_schema_is_closed(kind: str) -> None:
    """The schema takes no key that it does not know, nor does the class."""
    root = strict_schema(kind)["$ref"].rpartition("/")[2]
    assert strict_schema(kind)["$defs"][root]["additionalProperties"] is False


def test_the_published_schemas_are_fresh() -> None:
    """``schemas/`` holds what ``llmpipe schema --write schemas`` writes."""
    folder = Path(__file__).parent.parent / "schemas"
    assert stale_schemas(folder) == []


@pytest.mark.slow
def test_a_change_of_what_makes_artifacts_is_a_decision() -> None:
    """Code below a kind changes only together with its record: see `kind_sources`."""
    changed = differences()
    assert not changed, (
        "code that makes artifacts has changed. Where it makes others of the same inputs, raise the "
        "kind's VERSION; then `make kind-sources`:\n" + "\n".join(changed)
    )
