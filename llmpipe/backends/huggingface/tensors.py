"""Check safetensors files: whether the tensors exist, are finite, and are not all zeros.

Tensors are read one at a time, so a model larger than the memory can be checked. Pickled weights
(``.bin``, ``.pt``) are never opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmpipe.errors import StageError

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class TensorReport:
    """The shapes of tensors, and the names of tensors with problems."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    not_finite: list[str] = field(default_factory=list)
    zero: list[str] = field(default_factory=list)


def weight_files(model: Path) -> list[Path]:
    """Return the weight files of a model folder, sorted.

    Raises:
        StageError: There are none, or a file in the index is missing.
    """
    index = model / INDEX
    if index.is_file():
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        missing = [name for name in names if not (model / name).is_file()]
        if missing:
            raise StageError(f"{model.name} lacks the weight file {missing[0]}")
        return [model / name for name in names]
    files = sorted(model.glob("model*.safetensors"))
    if not files:
        raise StageError(
            f"{model.name} has no weights as safetensors",
            hint="llmpipe only reads and writes safetensors; pickled weights are not opened",
        )
    return files


def tensor_shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the files by name, reading only their headers.

    Raises:
        StageError: A file is not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    shapes = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                for name in sorted(opened.keys()):
                    shapes[name] = tuple(opened.get_slice(name).get_shape())
        except (SafetensorError, OSError) as error:
            raise StageError(f"{file.name} cannot be read: {error}") from error
    return shapes


def matrix_types(files: list[Path]) -> frozenset[str]:
    """Return the types of the tensors with two dimensions or more, such as ``BF16``.

    Raises:
        StageError: A file is not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    found = set()
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                slices = [opened.get_slice(name) for name in opened.keys()]  # noqa: SIM118
                found |= {s.get_dtype() for s in slices if len(s.get_shape()) > 1}
        except (SafetensorError, OSError) as error:
            raise StageError(f"{file.name} cannot be read: {error}") from error
    return frozenset(found)


def tensors(files: list[Path]) -> Iterator[tuple[str, Any]]:
    """Yield every tensor of the files by name, as torch tensors on the CPU.

    Raises:
        StageError: A file is not a safetensors file, or is incomplete.
    """
    from safetensors import SafetensorError, safe_open

    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                for name in sorted(opened.keys()):
                    yield name, opened.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise StageError(f"{file.name} cannot be read: {error}") from error


def look(files: list[Path]) -> TensorReport:
    """Read every tensor of the files, and return their shapes and problems."""
    report = TensorReport()
    for name, tensor in tensors(files):
        report.shapes[name] = tuple(tensor.shape)
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            report.not_finite.append(name)
        if tensor.numel() == 0 or not bool(tensor.any()):
            report.zero.append(name)
    return report
