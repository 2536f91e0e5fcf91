"""Read the shape of a model from the header of a GGUF file, without a library.

Only `llmpipe.estimate.bounds` uses it: a file that cannot be read so is left to the exact estimate.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

NAMES: Mapping[str, str] = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "expert_count": "num_experts",
}
"""GGUF's name of a number, after the architecture → the name in ``config.json``."""

TOKENS = "tokenizer.ggml.tokens"

_FORMATS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
"""GGUF's type of a number → the format of `struct`."""

_STRING, _ARRAY = 8, 9
_MOST = 10_000_000
"""Entries and bytes beyond which a header is not believed."""


def shape_of(path: Path) -> dict[str, Any] | None:
    """Return the numbers of a model's shape by their names in ``config.json``, or None."""
    try:
        with path.open("rb") as file:
            return _shape(file)
    except (OSError, ValueError, struct.error, RecursionError):
        return None


def _shape(file: BinaryIO) -> dict[str, Any]:
    if file.read(4) != b"GGUF":
        raise ValueError("not a GGUF file")
    _number(file, "I")
    _number(file, "Q")
    found: dict[str, Any] = {}
    for _ in range(_bounded(_number(file, "Q"))):
        key = _text(file)
        value = _value(file, _number(file, "I"))
        if key == TOKENS:
            found["vocab_size"] = value
        elif name := NAMES.get(key.partition(".")[2]):
            found[name] = value
    return found


def _value(file: BinaryIO, kind: int) -> Any:
    """Return a number, the length of an array, or None for a text."""
    if kind == _STRING:
        _text(file)
        return None
    if kind != _ARRAY:
        return _number(file, _format(kind))
    kind, count = _number(file, "I"), _bounded(_number(file, "Q"))
    if kind in (_STRING, _ARRAY):
        for _ in range(count):
            _value(file, kind)
    else:
        file.seek(count * struct.calcsize(_format(kind)), 1)
    return count


def _format(kind: int) -> str:
    if kind not in _FORMATS:
        raise ValueError(f"unknown type {kind}")
    return _FORMATS[kind]


def _text(file: BinaryIO) -> str:
    return file.read(_bounded(_number(file, "Q"))).decode("utf-8", "replace")


def _number(file: BinaryIO, code: str) -> Any:
    return struct.unpack(f"<{code}", file.read(struct.calcsize(code)))[0]


def _bounded(count: int) -> int:
    if count > _MOST:
        raise ValueError("too long")
    return count
