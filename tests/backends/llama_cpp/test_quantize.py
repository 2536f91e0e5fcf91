"""Quantizing, compared byte by byte with llama.cpp's own `llama_model_quantize`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.backends.llama_cpp.gguf_file import reader
from llmpipe.backends.llama_cpp.importance import read_importance, write_importance
from llmpipe.backends.llama_cpp.mixtures import (
    DEFAULTS,
    NEED_IMPORTANCE,
    Traits,
    choose,
    requires_importance,
)
from llmpipe.backends.llama_cpp.quantize import described, quantize
from llmpipe.errors import StageError

pytestmark = pytest.mark.heavy

ORACLE = Path(__file__).with_name("quantize_oracle.py")
LLAMA = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
EXPERTS = (*LLAMA[:4], "ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
ROLES = (*LLAMA, "attn_qkv", "attn_kv_b", "ffn_down_exps", "ffn_gate_inp", "attn_norm")
FUSED = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")

MODELS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "llama": ("llama", LLAMA, {"block_count": 20}),
    "shared values": ("llama", LLAMA, {"block_count": 9, "attention.head_count_kv": 1}),
    "70B": ("llama", LLAMA[2:3], {"block_count": 80, "attention.head_count_kv": 2}),
    "8 experts": ("llama", EXPERTS, {"block_count": 8, "expert_count": 8, "expert_used_count": 2}),
    "4 experts": ("llama", EXPERTS, {"block_count": 8, "expert_count": 4, "expert_used_count": 2}),
    "falcon": ("falcon", FUSED, {"block_count": 32, "attention.layer_norm_epsilon": 1e-5}),
    "qwen2": ("qwen2", LLAMA, {"block_count": 8}),
    "gemma2": ("gemma2", LLAMA, {"block_count": 8}),
    "phi3": ("phi3", FUSED[:3], {"block_count": 8}),
}
"""Architecture, tensors of a layer, and metadata of small models with which the rules differ."""


def write_model(target: Path, name: str, width: int = 256, *, own_head: bool = True) -> Path:
    """Write a model of `MODELS` with random weights of float32."""
    from gguf import GGUFWriter

    architecture, roles, settings = MODELS[name]
    random = np.random.default_rng(0)
    writer = GGUFWriter(target, architecture)
    usual = {
        "context_length": 64, "embedding_length": width, "feed_forward_length": width,
        "attention.head_count": 4, "attention.head_count_kv": 4,
        "attention.layer_norm_rms_epsilon": 1e-5, "attention.sliding_window": 32,
    }  # fmt: skip
    for key, value in {**usual, **settings}.items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{architecture}.{key}", value)

    def weights(*shape: int) -> Any:
        return random.standard_normal(shape, np.float32)

    experts = settings.get("expert_count", 1)
    writer.add_tensor("token_embd.weight", weights(8, width // 32 * 32))
    if own_head:
        writer.add_tensor("output.weight", weights(8, width // 32 * 32))
    writer.add_tensor("output_norm.weight", weights(width))
    for layer in range(settings["block_count"]):
        for role in roles:
            columns = 256 if role == "ffn_down" else width
            shape = (experts, 3, columns) if role.endswith("_exps") else (3, columns)
            writer.add_tensor(f"blk.{layer}.{role}.weight", weights(*shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def write_narrow(target: Path, width: int) -> Path:
    """Write a model whose tensors all have rows of ``width`` weights."""
    from gguf import GGUFWriter

    writer = GGUFWriter(target, "llama")
    writer.add_uint32("llama.block_count", 1)
    for name in ("token_embd", "blk.0.attn_q", "blk.0.ffn_down"):
        writer.add_tensor(f"{name}.weight", np.ones((3, width), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def oracle(source: Path, folder: Path, mixtures: list[str]) -> dict[str, Path]:
    """Have llama.cpp quantize a file to each mixture."""
    from gguf import LlamaFileType

    made = {mixture: folder / f"{mixture}.oracle.gguf" for mixture in mixtures}
    jobs = [
        {
            "source": str(source),
            "target": str(target),
            "ftype": int(LlamaFileType[f"MOSTLY_{mixture.upper()}"]),
        }
        for mixture, target in made.items()
    ]
    lines = "".join(json.dumps(job) + "\n" for job in jobs)
    subprocess.run([sys.executable, ORACLE], input=lines, text=True, check=True, timeout=300)
    return made


def assert_equal(found: Path, expected: Path) -> None:
    """Compare the type and the bytes of every tensor, and the metadata that says the type."""
    ours, theirs = reader(found), reader(expected)
    wanted = {tensor.name: tensor for tensor in theirs.tensors}
    assert {t.name: t.tensor_type.name for t in ours.tensors} == {
        name: tensor.tensor_type.name for name, tensor in wanted.items()
    }
    for tensor in ours.tensors:
        assert np.array_equal(tensor.data, wanted[tensor.name].data), tensor.name
    for field in ("general.file_type", "general.quantization_version"):
        assert ours.fields[field].contents() == theirs.fields[field].contents()


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_is_that_of_llama_cpp(name: str, tmp_path: Path) -> None:
    """Types and bytes of every mixture, for models with which the rules differ."""
    source = write_model(tmp_path / "source.gguf", name)
    mixtures = [mixture for mixture in DEFAULTS if mixture not in NEED_IMPORTANCE]
    for mixture, expected in oracle(source, tmp_path, mixtures).items():
        quantize(source, tmp_path / "ours.gguf", mixture, threads=2)
        assert_equal(tmp_path / "ours.gguf", expected)


@given(
    mixture=st.sampled_from(sorted(DEFAULTS)),
    traits=st.builds(
        Traits,
        st.sampled_from(["llama", "falcon", "gemma3"]),
        st.integers(0, 90),
        st.sampled_from([0, 4, 8, 64]),
        st.integers(0, 9),
    ),
    shapes=st.dictionaries(
        st.sampled_from(["token_embd", "output", *(f"blk.{i}.{r}" for i in (0, 7) for r in ROLES)]),
        st.tuples(st.integers(1, 3), st.integers(1, 1100)),
    ),
    importance=st.booleans(),
)
def test_every_choice_fits_its_rows(
    mixture: str, traits: Traits, shapes: dict[str, tuple[int, int]], importance: bool
) -> None:
    """Whatever the model, the blocks of a chosen type fill the rows exactly."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    named = {f"{name}.weight": shape for name, shape in shapes.items()}
    for name, choice in choose(mixture, traits, named, importance).items():
        assert named[name][0] > 1
        block, _ = GGML_QUANT_SIZES[GGMLQuantizationType[choice.type]]
        assert named[name][1] % block == 0


@pytest.mark.parametrize("own_head", [False, True])
@pytest.mark.parametrize("width", [288, 272])
def test_narrow_rows(width: int, own_head: bool, tmp_path: Path) -> None:
    """Rows that are a multiple of 32, and rows that are not, get the types that llama.cpp gives."""
    source = write_model(tmp_path / "source.gguf", "llama", width, own_head=own_head)
    for mixture, expected in oracle(source, tmp_path, ["q5_k_m", "q3_k_m", "iq4_xs"]).items():
        written = quantize(source, tmp_path / "ours.gguf", mixture, threads=2)
        assert_equal(tmp_path / "ours.gguf", expected)
        assert sum(map(len, written.fallbacks.values())) == 6 * 20 + (own_head and width == 288)


def test_what_fell_back_is_named(tmp_path: Path) -> None:
    """Tensors whose rows are too narrow are counted and named, with the true bits per weight."""
    source = write_model(tmp_path / "source.gguf", "llama", 288, own_head=False)
    target = tmp_path / "ours.gguf"
    written = quantize(source, target, "q4_k_s", threads=1)
    assert written.fallbacks["Q4_K", "Q5_0"][0].startswith("blk.0.attn_")
    tensors = reader(target).tensors
    stored, weights = (sum(int(getattr(t, k)) for t in tensors) for k in ("n_bytes", "n_elements"))
    assert written.bits == pytest.approx(8 * stored / weights)
    (sentence,) = described("q4_k_s", written)
    assert sentence.startswith(
        "q4_k_s: 120 of 142 tensors have rows that are not a multiple of the 256 or 32 weights"
    )
    assert "116 Q4_K → Q5_0" in sentence


def test_a_type_that_fits_no_tensor_is_refused(tmp_path: Path) -> None:
    """A file named Q4_K_M without a tensor of its types would be another type."""
    source = write_model(tmp_path / "source.gguf", "phi3", 96)
    with pytest.raises(StageError, match="too narrow for its blocks of 256") as caught:
        quantize(source, tmp_path / "ours.gguf", "q4_k_m", threads=1)
    assert "q8_0" in str(caught.value.hint)
    narrow = write_narrow(tmp_path / "narrow.gguf", 40)
    for mixture in ("q8_0", "q4_0", "iq4_nl", "q4_k_m"):
        with pytest.raises(StageError, match="would contain F16 alone") as caught:
            quantize(narrow, tmp_path / "ours.gguf", mixture, threads=1)
        assert caught.value.hint == "name f16"
    assert not (tmp_path / "ours.gguf").exists()


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    """A diverged model is an error that names the tensor."""
    source = write_model(tmp_path / "source.gguf", "llama")
    broken = next(t for t in reader(source).tensors if t.name == "blk.3.ffn_up.weight")
    with source.open("r+b") as file:
        file.seek(int(broken.data_offset))
        file.write(np.full(256, np.inf, np.float32).tobytes())
    with pytest.raises(StageError, match=r"blk\.3\.ffn_up\.weight has weights that are not finite"):
        quantize(source, tmp_path / "ours.gguf", "q4_k_m", threads=1)


def random_importance(source: Path) -> dict[str, Any]:
    """Return an importance matrix with a few columns that matter a thousand times more."""
    random = np.random.default_rng(1)
    found = {}
    for tensor in reader(source).tensors:
        shape = [int(size) for size in reversed(tensor.shape)]
        if "blk." in tensor.name and len(shape) > 1:
            experts = shape[0] if len(shape) > 2 else 1
            found[tensor.name] = random.choice([1, 1000], (experts, shape[-1])).astype(np.float32)
    return found


@pytest.mark.parametrize("name", ["llama", "shared values", "8 experts"])
def test_an_importance_matrix_keeps_what_matters(name: str, tmp_path: Path) -> None:
    """Columns of large importance are rounded more exactly than without it."""
    from gguf.quants import dequantize

    source = write_model(tmp_path / "source.gguf", name)
    importance = random_importance(source)
    exact = {t.name: t.data for t in reader(source).tensors}
    errors = {}
    for label, used in (("with", importance), ("without", None)):
        target = tmp_path / f"{label}.gguf"
        written = quantize(source, target, "q4_k_s", threads=2, importance=used)
        assert written.without_importance == ()
        errors[label] = sum(
            float((importance[t.name][:, None] * (rounded - exact[t.name]) ** 2).sum())
            for t in reader(target).tensors
            if t.name in importance and t.name in exact and "ffn_gate_inp" not in t.name
            for rounded in [dequantize(t.data, t.tensor_type)]
        )
    assert errors["with"] < 0.9 * errors["without"]


@pytest.mark.parametrize("mixture", sorted(NEED_IMPORTANCE))
def test_types_that_need_an_importance_matrix(mixture: str, tmp_path: Path) -> None:
    """With one they are written; a tensor that it lacks is an error that names the tensor."""
    source = write_model(tmp_path / "source.gguf", "llama")
    importance = random_importance(source)
    written = quantize(source, tmp_path / "ours.gguf", mixture, threads=2, importance=importance)
    assert 1.5 < written.bits < 5
    needed = next(
        tensor.name
        for tensor in reader(tmp_path / "ours.gguf").tensors
        if "blk." in tensor.name
        and requires_importance(mixture, tensor.name, tensor.tensor_type.name)
    )
    del importance[needed]
    with pytest.raises(StageError, match="importance matrix lacks " + needed.replace(".", r"\.")):
        quantize(source, tmp_path / "ours.gguf", mixture, threads=2, importance=importance)


def test_an_importance_matrix_of_another_model(tmp_path: Path) -> None:
    """Another width is an error; a tensor without values is counted and named."""
    source = write_model(tmp_path / "source.gguf", "llama")
    importance = random_importance(source)
    del importance["blk.0.attn_q.weight"]
    written = quantize(source, tmp_path / "a.gguf", "q4_k_m", threads=2, importance=importance)
    assert written.without_importance == ("blk.0.attn_q.weight",)
    importance["blk.0.attn_q.weight"] = np.ones((1, 64), np.float32)
    with pytest.raises(StageError, match=r"has 64 values for blk\.0\.attn_q\.weight instead"):
        quantize(source, tmp_path / "a.gguf", "q4_k_m", threads=2, importance=importance)


def test_the_format_of_an_importance_matrix(tmp_path: Path) -> None:
    """Sums and counts are written as llama-imatrix does, and read as mean squares."""
    path = tmp_path / "importance.gguf"
    sums = {"blk.0.ffn_up.weight": (np.array([2.0, 4.0]), 4)}
    write_importance(path, sums, data="dataset.train", texts=3)
    opened = reader(path)
    assert [tensor.name for tensor in opened.tensors] == [
        "blk.0.ffn_up.weight.in_sum2",
        "blk.0.ffn_up.weight.counts",
    ]
    assert opened.fields["general.type"].contents() == "imatrix"
    assert opened.fields["imatrix.datasets"].contents() == ["dataset.train"]
    assert read_importance(path)["blk.0.ffn_up.weight"].tolist() == [[0.5, 1.0]]
    with pytest.raises(StageError, match="is not an importance matrix"):
        read_importance(write_model(tmp_path / "model.gguf", "llama"))
