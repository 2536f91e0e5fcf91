"""Making a Hugging Face folder of a GGUF."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmpipe.backends.huggingface.chat_tokens import token_ids
from llmpipe.backends.huggingface.gguf_import import TOKENS, build_tokenizer, read_gguf
from llmpipe.backends.huggingface.inference import load_tokenizer
from llmpipe.errors import StageError

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def fields(smollm2_gguf: Path) -> dict[str, Any]:
    """The embedded GGUF's fields."""
    return read_gguf(smollm2_gguf)[0]


def test_fields_and_shapes(smollm2_gguf: Path) -> None:
    """Fields are plain values; shapes have the rows first."""
    found, shapes = read_gguf(smollm2_gguf)
    assert found["general.architecture"] == "llama"
    assert len(found[TOKENS]) == 49152
    assert shapes["token_embd.weight"] == (49152, 576)
    assert shapes["blk.0.ffn_down.weight"] == (576, 1536)


def test_weights_are_what_the_blocks_mean(smollm2: Path, smollm2_gguf: Path) -> None:
    """Tensors equal the dequantized ones to the bit, in float32."""
    import numpy as np
    from gguf import GGUFReader, dequantize
    from safetensors import safe_open

    tensors = {tensor.name: tensor for tensor in GGUFReader(smollm2_gguf).tensors}
    pairs = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.layers.7.mlp.down_proj.weight": "blk.7.ffn_down.weight",
        "model.layers.29.self_attn.v_proj.weight": "blk.29.attn_v.weight",
    }
    with safe_open(smollm2 / "model.safetensors", "numpy") as weights:
        assert len(weights.keys()) == 272
        for ours, theirs in pairs.items():
            tensor = tensors[theirs]
            expected = dequantize(tensor.data, tensor.tensor_type)
            assert weights.get_tensor(ours).dtype == np.float32
            assert np.array_equal(expected, weights.get_tensor(ours))


def test_tokenizer_of_the_folder(smollm2: Path) -> None:
    """Special tokens, template and the split of digits survive being saved and loaded."""
    tokenizer = load_tokenizer(smollm2)
    assert (tokenizer.eos_token, tokenizer.bos_token) == ("<|im_end|>", "<|im_start|>")
    assert tokenizer.chat_template.startswith("{% for message in messages %}")
    assert token_ids(tokenizer, "a  1<|im_end|>") == [81, 256, 33, 2]
    assert tokenizer.decode(token_ids(tokenizer, "été 😀\n")) == "été 😀\n"


def test_nothing_of_the_machine_in_the_folder(smollm2: Path) -> None:
    """No path of this machine gets into a file that is published."""
    for path in smollm2.glob("*.json"):
        assert str(smollm2.parent) not in path.read_text("utf-8")
    config = json.loads((smollm2 / "config.json").read_text("utf-8"))
    assert (config["model_type"], config["dtype"]) == ("llama", "float32")


@pytest.mark.parametrize(("kind", "pre"), [("gpt2", "llama-bpe"), ("llama", "default")])
def test_other_tokenizers_are_refused(fields: dict[str, Any], kind: str, pre: str) -> None:
    """Only tokenizers whose ids were shown to be equal are rebuilt; others are named."""
    changed = {**fields, "tokenizer.ggml.model": kind, "tokenizer.ggml.pre": pre}
    with pytest.raises(StageError, match=f"m.gguf has a tokenizer of kind {kind}/{pre}") as caught:
        build_tokenizer(changed, "m.gguf")
    assert "gpt2/smollm" in caught.value.message


@pytest.mark.parametrize("size", [0, 3, 4, 24, 100, 5000, 900_000, 3_000_000])
def test_file_that_is_cut_short(smollm2_gguf: Path, tmp_path: Path, size: int) -> None:
    """A part of a GGUF is an error with the file's name, wherever it was cut."""
    part = tmp_path / "part.gguf"
    with smollm2_gguf.open("rb") as whole:
        part.write_bytes(whole.read(size))
    with pytest.raises(StageError, match=r"part\.gguf cannot be read as GGUF"):
        read_gguf(part)


def test_missing_file(tmp_path: Path) -> None:
    """So is a file that is not there."""
    with pytest.raises(StageError, match=r"none\.gguf cannot be read"):
        read_gguf(tmp_path / "none.gguf")
