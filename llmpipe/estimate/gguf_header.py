"""Read the shape of a model and its tensors from the header of a GGUF file, without a library.

A header that cannot be read so has no answer: what depends on it is said to be unknown.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
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

ALIGNMENT = 32
"""Where the data of the tensors begins, unless the header says otherwise."""

_FORMATS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
"""GGUF's type of a number → the format of `struct`."""

_STRING, _ARRAY = 8, 9
_MOST = 10_000_000
"""Entries and bytes beyond which a header is not believed."""

_SHORT = 1000
"""The most numbers of an array that is read."""

_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a GGUF says, all parts of a split file together.

    Attributes:
        fields: the metadata: numbers, short texts, short arrays of numbers; of others the length.
        shapes: the shape of every tensor, rows first.
        size: the bytes of the files.
        data: of these, the bytes of the tensors.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    size: int = 0
    data: int = 0


def read_header(path: Path) -> Header | None:
    """Return what a file says, or None if it is not a GGUF that can be read so."""
    try:
        return _of_parts(path)
    except (OSError, ValueError, struct.error, RecursionError, OverflowError, MemoryError):
        return None


def shape_of(path: Path) -> dict[str, Any] | None:
    """Return the numbers of a model's shape by their names in ``config.json``, or None."""
    header = read_header(path)
    return None if header is None else shape_in(header)


def shape_in(header: Header) -> dict[str, Any]:
    """Return the numbers of a model's shape by their names in ``config.json``."""
    found = {}
    for key, value in header.fields.items():
        if key == TOKENS:
            found["vocab_size"] = value
        elif name := NAMES.get(key.partition(".")[2]):
            found[name] = max(value, default=0) if isinstance(value, list) else value
    return found


def _of_parts(path: Path) -> Header:
    found = Header()
    for part in _parts(path):
        with part.open("rb") as file:
            header = _header(file)
        found.fields.update({k: v for k, v in header.fields.items() if k not in found.fields})
        found.shapes.update(header.shapes)
        found = Header(
            found.fields, found.shapes, found.size + header.size, found.data + header.data
        )
    return found


def _parts(path: Path) -> list[Path]:
    """Return the file, or all parts of a split one."""
    match = _PART.search(path.name)
    if not match or int(match[2]) > 1000:
        return [path]
    stem = path.name[: match.start()]
    names = (f"{stem}-{n:05}-of-{match[2]}.gguf" for n in range(1, int(match[2]) + 1))
    return [path.with_name(name) for name in names]


def _header(file: BinaryIO) -> Header:
    if file.read(4) != b"GGUF":
        raise ValueError("not a GGUF file")
    _number(file, "I")
    tensors = _bounded(_number(file, "Q"))
    fields: dict[str, Any] = {}
    for _ in range(_bounded(_number(file, "Q"))):
        key = _text(file)
        fields[key] = _value(file, _number(file, "I"))
    shapes = {}
    for _ in range(tensors):
        name = _text(file)
        shape = [_number(file, "Q") for _ in range(min(_number(file, "I"), 8))]
        _number(file, "I")
        _number(file, "Q")
        if prod(shape) > 2**48:
            raise ValueError("too large")
        shapes[name] = tuple(reversed(shape))
    alignment = fields.get("general.alignment")
    step = alignment if isinstance(alignment, int) and 0 < alignment < 2**20 else ALIGNMENT
    begins = -(-file.tell() // step) * step
    size = file.seek(0, 2)
    return Header(fields, shapes, size, max(0, size - begins))


def _value(file: BinaryIO, kind: int) -> Any:
    """Return a number, a short text or array of numbers, or the length of another array."""
    if kind == _STRING:
        text = _text(file)
        return text if len(text) < 100 else None
    if kind != _ARRAY:
        return _number(file, _format(kind))
    kind, count = _number(file, "I"), _bounded(_number(file, "Q"))
    if kind == _STRING:
        for _ in range(count):
            file.seek(_bounded(_number(file, "Q")), 1)
    elif kind == _ARRAY:
        for _ in range(count):
            _value(file, kind)
    elif count <= _SHORT:  # one number for each layer
        return [_number(file, _format(kind)) for _ in range(count)]
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
