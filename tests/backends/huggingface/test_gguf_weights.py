"""Weights of a GGUF become a model's with nothing missing, nothing left over, nothing misshapen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf_files import Tensors, rewrite

from llmpipe.backends.huggingface.gguf_weights import write_weights
from llmpipe.backends.llama_cpp.gguf_file import open_gguf
from llmpipe.errors import StageError

pytestmark = pytest.mark.heavy

Change = Callable[[Tensors], None]


def written(sharp_llama: Path, tmp_path: Path, change: Change, parts: int = 0) -> list[str]:
    """Change a GGUF and write its weights; return what was warned of."""
    gguf = rewrite(
        sharp_llama / "bare.gguf", tmp_path / "m.gguf", tensors_a_part=parts, change=change
    )
    warnings: list[str] = []
    (tmp_path / "out").mkdir()
    write_weights(open_gguf(gguf), tmp_path / "out", work=tmp_path, warn=warnings.append)
    return warnings


def refused(sharp_llama: Path, tmp_path: Path, change: Change, parts: int = 0) -> str:
    """Change a GGUF so that its weights cannot be written; return what is said."""
    with pytest.raises(StageError) as caught:
        written(sharp_llama, tmp_path, change, parts)
    assert not list((tmp_path / "out").iterdir())
    return caught.value.message


@pytest.mark.parametrize("parts", [0, 8])
def test_every_tensor_arrives(sharp_llama: Path, tmp_path: Path, parts: int) -> None:
    """From one file or three, the weights are those that the GGUF was made of, in float16."""
    import torch
    from safetensors.torch import load_file

    assert written(sharp_llama, tmp_path, lambda tensors: None, parts) == []
    expected = load_file(sharp_llama / "model" / "model.safetensors")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor.half().float()), name


@pytest.mark.parametrize(("parts", "joined"), [(0, 0), (8, 1)])
def test_a_file_is_parsed_once(
    sharp_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int, joined: int
) -> None:
    """transformers takes what is read already, also of parts; gguf is left as it was."""
    import gguf
    from gguf import gguf_reader

    path = rewrite(sharp_llama / "bare.gguf", tmp_path / "m.gguf", tensors_a_part=parts)
    parsed = []
    build = gguf_reader.GGUFReader._build_fields

    def counted(self: gguf.GGUFReader, *args: Any) -> Any:
        parsed.append(self)
        return build(self, *args)

    monkeypatch.setattr(gguf_reader.GGUFReader, "_build_fields", counted)
    before = gguf.GGUFReader, gguf.get_tensor_name_map
    opened = open_gguf(path)
    assert len(parsed) == len(opened.readers)
    write_weights(opened, tmp_path / "out", work=tmp_path, warn=print)
    assert len(parsed) == len(opened.readers) + joined
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == before


@pytest.mark.parametrize("parts", [0, 8])
@pytest.mark.parametrize(
    "name", ["blk.1.attn_v.weight", "blk.0.attn_norm.weight", "output_norm.weight"]
)
def test_a_missing_tensor(sharp_llama: Path, tmp_path: Path, parts: int, name: str) -> None:
    """It would be random, or all ones: an error that names it."""
    told = refused(sharp_llama, tmp_path, lambda tensors: tensors.pop(name) and None, parts)
    assert f"lacks the tensor {name}: the model would have random weights" in told


def test_many_missing_tensors_are_counted(sharp_llama: Path, tmp_path: Path) -> None:
    """A few are named."""

    def drop(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.startswith("blk.1.")]:
            del tensors[name]

    assert "lacks 9 tensors: blk.1.attn_k.weight, " in (
        told := refused(sharp_llama, tmp_path, drop)
    )
    assert " and 6 more: " in told


@pytest.mark.parametrize("name", ["blk.0.ffn_up.weight", "blk.1.attn_q.weight"])
def test_a_tensor_of_another_shape(sharp_llama: Path, tmp_path: Path, name: str) -> None:
    """Both shapes are said."""

    def cut(tensors: Tensors) -> None:
        data, kind = tensors[name]
        tensors[name] = data[:32], kind

    told = refused(sharp_llama, tmp_path, cut)
    assert f"the tensor {name} has the shape (32, 64), but (" in told


def test_a_tensor_that_nothing_takes(sharp_llama: Path, tmp_path: Path) -> None:
    """A third layer in a file of two is an error: transformers would drop it silently."""

    def add(tensors: Tensors) -> None:
        tensors["blk.2.attn_v.weight"] = tensors["blk.1.attn_v.weight"]
        tensors["blk.0.attn_q.bias"] = tensors["blk.0.attn_norm.weight"]

    told = refused(sharp_llama, tmp_path, add)
    assert "model does not use: 2 tensors: blk.0.attn_q.bias, blk.2.attn_v.weight" in told


def test_a_tensor_that_is_known_to_be_left_out(sharp_llama: Path, tmp_path: Path) -> None:
    """Frequency factors have no place in the model, which is said."""
    import numpy as np
    from gguf import GGMLQuantizationType

    def add(tensors: Tensors) -> None:
        tensors["rope_freqs.weight"] = np.ones(8, np.float32), GGMLQuantizationType.F32

    (warning,) = written(sharp_llama, tmp_path, add)
    assert "left out" in warning
    assert "the tensor rope_freqs.weight (frequency factors for long contexts)" in warning
