"""Predictions of a model folder and a GGUF: correct imports agree, wrong ones are detected."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import write_f16

from llmpipe.backends.huggingface.gguf_import import import_model
from llmpipe.backends.llama_cpp.client import LlamaServer
from llmpipe.backends.llama_cpp.serve import serve_gguf
from llmpipe.errors import StageError
from llmpipe.parity.golden import TEXTS
from llmpipe.parity.predictions import TOP, compare_predictions

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def served(sharp_llama: Path) -> Iterator[LlamaServer]:
    """llama.cpp with the tiny model."""
    with serve_gguf(sharp_llama / "f16.gguf", threads=2) as server:
        yield server


@pytest.fixture(scope="module")
def imported(sharp_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of the import."""
    folder = tmp_path_factory.mktemp("imported") / "model"
    import_model(sharp_llama / "f16.gguf", folder)
    return folder


def spoiled(model: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy a model folder and change its tensors."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_an_honest_import(imported: Path, sharp_llama: Path, served: LlamaServer) -> None:
    """The values are small, and are returned with their limits."""
    gguf = sharp_llama / "f16.gguf"
    found = compare_predictions(imported, gguf, served, label="m", threads=2).as_json()
    assert found["places"] > 20
    assert found["mean_kl"] < found["limits"]["mean_kl"] == 0.001
    assert found["spread"] < found["limits"]["spread"] == 0.03
    assert found["same_first"] > 0.9


def random_values(tensors: dict[str, Any]) -> None:
    """Put random values of the same size into one tensor."""
    import torch

    torch.manual_seed(1)
    tensor = tensors["model.layers.1.self_attn.v_proj.weight"]
    tensor.copy_(torch.randn_like(tensor) * tensor.std())


def permuted_heads(tensors: dict[str, Any]) -> None:
    """Put the rows of one layer's keys into GGUF's order."""
    tensor = tensors["model.layers.1.self_attn.k_proj.weight"]
    tensor.copy_(tensor.view(2, 2, 8, 64).swapaxes(1, 2).reshape(32, 64).clone())


def swapped_layers(tensors: dict[str, Any]) -> None:
    """Swap the two layers."""
    for name in [name for name in tensors if ".layers.0." in name]:
        other = name.replace(".layers.0.", ".layers.1.")
        tensors[name], tensors[other] = tensors[other], tensors[name]


def swapped_projections(tensors: dict[str, Any]) -> None:
    """Swap gate and up of one layer's feed-forward part."""
    gate, up = (f"model.layers.0.mlp.{name}_proj.weight" for name in ("gate", "up"))
    tensors[gate], tensors[up] = tensors[up], tensors[gate]


def not_a_number(tensors: dict[str, Any]) -> None:
    """Damage one value."""
    tensors["model.norm.weight"][0] = float("nan")


@pytest.mark.parametrize(
    "change",
    [random_values, permuted_heads, swapped_layers, swapped_projections, not_a_number],
)
def test_a_wrong_model_is_told(
    imported: Path,
    sharp_llama: Path,
    served: LlamaServer,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
) -> None:
    """Every tensor exists and has its shape, but the model is different."""
    wrong = spoiled(imported, tmp_path / "wrong", change)
    with pytest.raises(StageError, match="m became a model that predicts differently"):
        compare_predictions(wrong, sharp_llama / "f16.gguf", served, label="m", threads=2)


def test_a_model_that_knows_nothing(tiny_llama: Path, tools_dir: Path, tmp_path: Path) -> None:
    """If all tokens are about equally likely, the divergence is small but the spread is not."""
    gguf = tmp_path / "f16.gguf"
    write_f16(tiny_llama, gguf, tools_dir)
    wrong = spoiled(tiny_llama, tmp_path / "wrong", swapped_layers)
    with serve_gguf(gguf, threads=2) as server:
        found = compare_predictions(tiny_llama, gguf, server, label="m", threads=2)
        assert found.divergence.mean_kl < 1e-5
        with pytest.raises(StageError, match="of the spread"):
            compare_predictions(wrong, gguf, server, label="m", threads=2)


def test_a_quantized_model(smollm2: Path, smollm2_gguf: Path, tmp_path: Path) -> None:
    """In SmolLM2 in Q4_1, two swapped layers are more than rounding explains."""

    def swap(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if ".layers.14." in name]:
            other = name.replace(".layers.14.", ".layers.15.")
            tensors[name], tensors[other] = tensors[other], tensors[name]

    wrong = spoiled(smollm2, tmp_path / "wrong", swap)
    told = pytest.raises(StageError, match=r"rounding explains 0\.02")
    with serve_gguf(smollm2_gguf, threads=2) as server, told:
        compare_predictions(wrong, smollm2_gguf, server, label="m", threads=2)


def test_the_next_tokens(served: LlamaServer, imported: Path) -> None:
    """The server returns the next token even if it is only a part of a character.

    On its own, llama.cpp leaves it out and returns the token after it.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(imported)
    model = AutoModelForCausalLM.from_pretrained(imported).eval()
    ids = served.tokenize(" ".join(TEXTS))
    with torch.inference_mode():
        likeliest = model(torch.tensor([ids])).logits[0].argmax(-1).tolist()
    partial = [i for i, token in enumerate(likeliest) if "\ufffd" in tokenizer.decode([token])]
    assert partial
    for position in [0, *partial[:3]]:
        found = served.next_tokens(ids[: position + 1], TOP)
        assert len(found) == TOP
        assert next(iter(found)) == likeliest[position]
