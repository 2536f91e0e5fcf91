"""Write a GGUF from the metadata of another one and a list of tensors, one tensor at a time."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MAGIC, _VERSION = b"GGUF", 3
_UINT32 = 4
"""The number of this type of value in GGUF."""


@dataclass(frozen=True, slots=True)
class NewTensor:
    """A tensor to write.

    Attributes:
        name: Its name.
        shape: Its sizes in GGUF's order, columns first.
        kind: The number of its type.
        size: Its size in bytes.
        parts: Called once to return its bytes in parts, when it is its turn.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    size: int
    parts: Callable[[], Iterable[Any]]


def stored_bytes(reader: Any, tensor: Any) -> list[Any]:
    """Return the bytes of a tensor of a `gguf.GGUFReader`, as they are stored."""
    begin = int(tensor.data_offset)
    return [reader.data[begin : begin + int(tensor.n_bytes)]]


def write_gguf(
    target: Path,
    source: Any,
    tensors: Sequence[NewTensor],
    *,
    without: Collection[str] = (),
    numbers: Mapping[str, int] | None = None,
) -> None:
    """Write a GGUF.

    Args:
        target: The file to write.
        source: The `gguf.GGUFReader` whose metadata is written byte for byte.
        tensors: The tensors, in the order of the file.
        without: The fields that are left out.
        numbers: Fields that are unsigned numbers, which replace those of ``source`` or are added.
    """
    fields = {  # the reader adds the file's header as "GGUF.version" and so on
        name: b"".join(part.tobytes() for part in field.parts)
        for name, field in source.fields.items()
        if name not in without and not name.startswith("GGUF.")
    }
    fields |= {name: _number(name, value) for name, value in (numbers or {}).items()}
    alignment, offset = int(source.alignment), 0
    with target.open("wb") as file:
        file.write(_MAGIC + struct.pack("<IQQ", _VERSION, len(tensors), len(fields)))
        file.writelines(fields.values())
        for tensor in tensors:
            sizes = struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape)
            file.write(_text(tensor.name) + struct.pack("<I", len(tensor.shape)) + sizes)
            file.write(struct.pack("<IQ", tensor.kind, offset))
            offset += tensor.size + -tensor.size % alignment
        for tensor in tensors:
            file.write(bytes(-file.tell() % alignment))
            begin = file.tell()
            for part in tensor.parts():
                file.write(part)
            assert file.tell() - begin == tensor.size, tensor.name
        file.write(bytes(-file.tell() % alignment))


def _number(name: str, value: int) -> bytes:
    return _text(name) + struct.pack("<II", _UINT32, value)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()
