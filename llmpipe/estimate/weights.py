"""Know the tensors of a model before anything runs: their names, shapes and bytes.

They come from the header of a GGUF or of safetensors files, or follow from a ``config.json`` where
the weights are not here. Names are those of GGUF, by which llama.cpp chooses the type of a tensor.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from llmpipe.backends.llama_cpp.mixtures import (
    BLOCKS,
    CONVERTED,
    DEFAULTS,
    EMBEDDING,
    OUTPUT,
    Traits,
    choose,
)
from llmpipe.estimate.bounds import GATED
from llmpipe.estimate.gguf_header import Header, read_header
from llmpipe.estimate.model_config import MODELS, find_config
from llmpipe.needs import Given

Shapes = Mapping[str, tuple[int, ...]]

PER_TOKEN = 36
"""Bytes that the vocabulary takes in a GGUF for each of its tokens: text, type and merge. Measured:
36.3 for SmolLM2."""

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1}
"""Bytes of a number in safetensors; others are taken for two."""

_DTYPES = {"float32": 4, "float16": 2, "bfloat16": 2}

_LARGEST_HEADER = 100_000_000

_LAYER = re.compile(r"^(?:.*\.)?layers\.(\d+)\.(.+)$")
_ROLES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.qkv_proj": "attn_qkv",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "mlp.gate_up_proj": "ffn_up",
}  # fmt: skip
"""A module of a layer in transformers → its name in GGUF."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The tensors of a model, as far as estimates need them.

    Attributes:
        shapes: the shape of every tensor, rows first, by its name in GGUF.
        stored: the bytes of its weights on disk.
        traits: what llama.cpp looks at when it chooses types.
        head: the length of an attention head.
        inner: the width inside a feed-forward layer.
    """

    shapes: Shapes
    stored: int
    traits: Traits
    head: int
    inner: int

    @property
    def parameters(self) -> int:
        """The number of weights; those that two tensors share count once."""
        return sum(map(prod, self.shapes.values()))

    @property
    def width(self) -> int:
        """The length of a hidden state."""
        return self.shapes[EMBEDDING][1] if EMBEDDING in self.shapes else 0

    @property
    def vocabulary(self) -> int:
        """The number of tokens that it knows."""
        return self.shapes[EMBEDDING][0] if EMBEDDING in self.shapes else 0

    @property
    def edges(self) -> int:
        """The weights of embedding and head."""
        return sum(prod(self.shapes[n]) for n in (EMBEDDING, OUTPUT) if n in self.shapes)

    @property
    def block(self) -> int:
        """The weights of the largest layer."""
        sizes: dict[str, int] = {}
        for name, shape in self.shapes.items():
            if name.startswith("blk."):
                layer = name.split(".")[1]
                sizes[layer] = sizes.get(layer, 0) + prod(shape)
        return max(sizes.values(), default=0)

    def cache(self, tokens: int, number: int) -> int:
        """Return the bytes of the keys and values of so many tokens, of ``number`` bytes each."""
        keys = next((s[0] for n, s in self.shapes.items() if n.endswith("attn_k.weight")), None)
        if keys is None:  # one matrix for queries, keys and values
            keys = self.width
        return 2 * self.traits.layers * keys * tokens * number

    def as_gguf(self, kind: str, *, importance: bool = False) -> int:
        """Return the bytes of the GGUF file of this type, as llama.cpp chooses types."""
        if kind in CONVERTED:
            chosen = {name: kind.upper() for name, shape in self.shapes.items() if len(shape) > 1}
        else:
            found = choose(kind, self.traits, self.shapes, importance)
            chosen = {name: choice.type for name, choice in found.items()}
        total = PER_TOKEN * self.vocabulary
        for name, shape in self.shapes.items():
            width, size = BLOCKS[chosen.get(name, "F32")]
            total += prod(shape[:-1]) * -(-shape[-1] // width) * size
        return total


@dataclass(frozen=True, slots=True)
class Unknown:
    """Why the weights of a model are not known."""

    reason: str


def find_weights(given: Given, *, online: bool = False) -> Weights | Unknown:
    """Return the weights that an input will have.

    Args:
        given: a model, adapter or GGUF; an adapter stands for its base.
        online: whether a ``config.json`` may be downloaded.
    """
    mixture, number = _form(given)
    config = find_config(given, online=online)
    if config.missing:
        return Unknown(config.missing)
    if config.gguf is not None:
        found = _of_gguf(config.gguf)
    else:
        assert config.content is not None
        found = _of_folder(config.folder, config.content)
    if isinstance(found, Unknown):
        return found
    if mixture:
        return replace(found, stored=found.as_gguf(mixture))
    return replace(found, stored=number * found.parameters) if number else found


@dataclass(frozen=True, slots=True)
class Encoder:
    """A model that embeds texts: the length of its vectors, and its bytes."""

    width: int
    stored: int


def encoder_of(given: Given) -> Encoder | Unknown:
    """Return what is known of the folder of a model that embeds texts."""
    config = find_config(given, online=False)
    if config.content is None or config.folder is None:
        return Unknown(config.missing or "the embedder is not a folder")
    found = _headers(config.folder)
    size = found[1] if found else 0
    if not size:
        try:
            size = (config.folder / "pytorch_model.bin").stat().st_size
        except OSError:
            return Unknown(f"the weights of {config.folder.name} are not on this machine")
    try:
        return Encoder(int(_pooled(config.folder) or config.content["hidden_size"]), size)
    except (KeyError, TypeError, ValueError):
        return Unknown(f"{config.folder.name} does not say how long its vectors are")


def _pooled(folder: Path) -> Any:
    """Return the length of the vectors that sentence-transformers makes, if the folder says it."""
    try:
        settings = json.loads((folder / "1_Pooling" / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return settings.get("word_embedding_dimension") if isinstance(settings, dict) else None


def _form(given: Given) -> tuple[str, int]:
    """Return the type of the GGUF that stages make of a model, or the bytes of each weight.

    Empty and 0 where they leave it as it is.
    """
    while given.path is None and not given.repo:
        before = {one.type: one for one in given.inputs.values()}
        if given.type == "gguf" and given.output in (*CONVERTED, *DEFAULTS):
            return given.output, 0
        if given.type == "model" and "gguf" in before:
            return "", _DTYPES["float32"]  # what an import writes
        parents = [before[kind] for kind in MODELS if kind in before]
        if not parents:
            break
        given = parents[0]
    return "", 0


def _of_gguf(path: Path) -> Weights | Unknown:
    try:
        stat = path.stat()
    except OSError as error:
        return Unknown(f"{path.name} cannot be read: {error.strerror}")
    header = _cached_header(path, stat.st_size, stat.st_mtime_ns)
    if header is None or not header.shapes:
        return Unknown(f"the header of {path.name} cannot be read")
    traits = Traits.read(header.fields)
    shapes = header.shapes
    heads = header.fields.get(f"{traits.architecture}.attention.head_count")
    width = header.fields.get(f"{traits.architecture}.attention.key_length")
    query = next((s[0] for n, s in shapes.items() if n.endswith("attn_q.weight")), 0)
    first = heads[0] if isinstance(heads, list) and heads else heads
    head = width or (query // first if isinstance(first, int) and first else 0)
    inner = header.fields.get(f"{traits.architecture}.feed_forward_length") or 0
    inner = max(inner, default=0) if isinstance(inner, list) else inner
    return Weights(shapes, header.data, traits, int(head), int(inner))


@lru_cache(maxsize=64)
def _cached_header(path: Path, size: int, changed: int) -> Header | None:
    return read_header(path)


def _of_folder(folder: Path | None, config: Mapping[str, Any]) -> Weights | Unknown:
    """Return the weights of a folder of transformers, of which perhaps only the configuration is
    here."""
    text = config.get("text_config")
    text = text if isinstance(text, Mapping) else config
    try:
        heads = int(text["num_attention_heads"])
        shared = int(text.get("num_key_value_heads") or heads)
        layers, inner = int(text["num_hidden_layers"]), int(text.get("intermediate_size") or 0)
        head = int(text.get("head_dim") or int(text["hidden_size"]) // heads)
        experts = int(text.get("num_local_experts") or text.get("num_experts") or 0)
    except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError):
        return Unknown(f"the shape of a {config.get('model_type')} is not in its config.json")
    traits = Traits(str(text.get("model_type")), layers, experts, heads // shared if shared else 0)
    found = None if folder is None else _headers(folder)
    if found is not None:
        return Weights(dict(_in_gguf(found[0])), found[1], traits, head, inner)
    if text.get("model_type") not in GATED or config.get("quantization_config"):
        return Unknown(f"the size of a {text.get('model_type')} follows only from its weights")
    shapes = dict(_in_gguf(_of_config(text, head, heads, shared, layers, inner)))
    number = _DTYPES.get(str(config.get("dtype") or config.get("torch_dtype")), 2)
    return Weights(shapes, number * sum(map(prod, shapes.values())), traits, head, inner)


def _of_config(
    text: Mapping[str, Any], head: int, heads: int, shared: int, layers: int, inner: int
) -> Shapes:
    """Return the tensors of a decoder with attention and three matrices in each layer."""
    width, vocabulary = int(text["hidden_size"]), int(text["vocab_size"])
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, width)}
    tied = text.get("tie_word_embeddings", text.get("model_type", "")[:5] == "gemma")
    if not tied:
        found["lm_head.weight"] = (vocabulary, width)
    for layer in range(layers):
        at = f"model.layers.{layer}"
        queries, keys = heads * head, shared * head
        if text.get("model_type") == "phi3":
            found[f"{at}.self_attn.qkv_proj.weight"] = (queries + 2 * keys, width)
            found[f"{at}.mlp.gate_up_proj.weight"] = (2 * inner, width)
        else:
            found[f"{at}.self_attn.q_proj.weight"] = (queries, width)
            found[f"{at}.self_attn.k_proj.weight"] = (keys, width)
            found[f"{at}.self_attn.v_proj.weight"] = (keys, width)
            found[f"{at}.mlp.gate_proj.weight"] = (inner, width)
            found[f"{at}.mlp.up_proj.weight"] = (inner, width)
        found[f"{at}.self_attn.o_proj.weight"] = (width, queries)
        found[f"{at}.mlp.down_proj.weight"] = (width, inner)
        found[f"{at}.input_layernorm.weight"] = (width,)
        found[f"{at}.post_attention_layernorm.weight"] = (width,)
    found["model.norm.weight"] = (width,)
    return found


def _in_gguf(shapes: Shapes) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield tensors by the names that llama.cpp's converter gives them."""
    for name, shape in shapes.items():
        if match := _LAYER.match(name):
            module, _, kind = match[2].rpartition(".")
            role = _ROLES.get(module, module.replace(".", "_"))
            role = f"{role}_norm" if "norm" in role and not role.endswith("_norm") else role
            yield f"blk.{match[1]}.{role}.{kind}", shape
        elif name.endswith("embed_tokens.weight"):
            yield EMBEDDING, shape
        elif name.endswith("lm_head.weight"):
            yield OUTPUT, shape
        else:
            yield name, shape


def _headers(folder: Path) -> tuple[Shapes, int] | None:
    """Return the shapes and bytes of the tensors of a folder's safetensors files."""
    shapes: dict[str, tuple[int, ...]] = {}
    size = 0
    for file in sorted(folder.glob("model*.safetensors")):
        try:
            stat = file.stat()
            found = _safetensors(file, stat.st_size, stat.st_mtime_ns)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        for name, (kind, shape) in found.items():
            shapes[name] = shape
            size += _BYTES.get(kind, 2) * prod(shape)
    return (shapes, size) if shapes else None


@lru_cache(maxsize=256)
def _safetensors(file: Path, size: int, changed: int) -> Mapping[str, tuple[str, tuple[int, ...]]]:
    """Return the type and shape of each tensor: a file begins with the length of its JSON header.

    Raises:
        ValueError: it is not a safetensors file.
    """
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > min(size, _LARGEST_HEADER):
            raise ValueError("not a safetensors file")
        header = json.loads(opened.read(length))
    return {
        name: (str(tensor["dtype"]), tuple(map(int, tensor["shape"])))
        for name, tensor in header.items()
        if name != "__metadata__"
    }
