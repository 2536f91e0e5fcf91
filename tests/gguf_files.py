"""Write GGUFs for tests: an existing one again, split into parts or with some of it changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

Tensors = dict[str, tuple[Any, Any]]
"""By name the data as it is stored and its GGUF type."""


def rewrite(
    source: Path,
    target: Path,
    *,
    tensors_a_part: int = 0,
    empty_first: bool = False,
    tokenizer: bool = True,
    change: Callable[[Tensors], None] = lambda tensors: None,
    texts: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write a GGUF again with gguf-py and return its file, or the first of its parts.

    Args:
        source: the GGUF.
        target: the file to write; the parts of a split one have its stem.
        tensors_a_part: how many tensors each part holds; 0 for one file.
        empty_first: whether the first part holds metadata only.
        tokenizer: whether the tokenizer is kept: to read its lists takes gguf-py a while.
        change: edits the tensors.
        texts: fields that are texts, and are to be others.
    """
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    reader = GGUFReader(source)
    architecture = "general.architecture"
    writer = GGUFWriter(
        target,
        reader.fields[architecture].contents(),
        split_max_tensors=tensors_a_part,
        small_first_shard=empty_first,
    )
    for name, field in reader.fields.items():
        lists = name.startswith("tokenizer.") and field.types[0] == GGUFValueType.ARRAY
        if not name.startswith("GGUF.") and name != architecture and (tokenizer or not lists):
            inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(name, texts.get(name, field.contents()), field.types[0], inner)
    tensors = {tensor.name: (tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    change(tensors)
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if not tensors_a_part:
        return target
    return next(iter(sorted(target.parent.glob(f"{target.stem}-00001-of-*.gguf"))))


def write_lora(path: Path, seed: int, *, width: int = 576, layers: int = 30) -> Path:
    """Write a random LoRA adapter for a llama whose attention is so wide; SmolLM2's by default."""
    import numpy as np
    from gguf import GGUFWriter

    writer = GGUFWriter(str(path), "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    drawn = np.random.default_rng(seed)
    for layer in range(layers):
        for part, shape in (("a", (4, width)), ("b", (width, 4))):
            values = (drawn.normal(size=shape) * 0.2).astype(np.float32)
            writer.add_tensor(f"blk.{layer}.attn_output.weight.lora_{part}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
