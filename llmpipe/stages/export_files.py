"""Write the GGUF files of an ``export`` stage: the model is converted once, then quantized.

llama.cpp's converter writes 16-bit files. The other types are made from a conversion that keeps the
model's weights exactly: of the same 16-bit type if all matrices have it, else float32. A file does
not depend on the other types that the stage writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from llmpipe.backends.huggingface.tensors import matrix_types, weight_files
from llmpipe.backends.llama_cpp import converter
from llmpipe.backends.llama_cpp.mixtures import CONVERTED
from llmpipe.backends.llama_cpp.quantize import (
    Importance,
    Written,
    measured,
    quantize,
    verify_blocks,
)

Convert = Callable[[Path, converter.OutputType], None]
"""Convert the model to a file of a type."""


def write_files(
    model: Path,
    types: Sequence[str],
    out: Path,
    work: Path,
    *,
    convert: Convert,
    threads: int,
    calibrate: Callable[[Path], Importance] | None = None,
    on_file: Callable[[str], None] = lambda kind: None,
) -> dict[str, Written]:
    """Write ``<type>.gguf`` to ``out`` for each type, and return what each file contains.

    Args:
        model: the Hugging Face folder.
        types: the types, of `llmpipe.backends.llama_cpp.mixtures.TYPES`.
        out: the folder for the files.
        work: the folder for the conversion that the other types are made from; it is deleted.
        convert: converts the model.
        threads: CPU threads to quantize on.
        calibrate: called once with the conversion; returns the importance matrix of the model.
        on_file: called before each file with its type.

    Raises:
        StageError: the model cannot be converted, or not quantized to a type.
    """
    found = {}
    direct = [kind for kind in types if kind in CONVERTED or list(types) == ["q8_0"]]
    for kind in direct:
        on_file(kind)
        convert(out / f"{kind}.gguf", cast(converter.OutputType, kind))
        verify_blocks(out / f"{kind}.gguf", kind)
        found[kind] = measured(out / f"{kind}.gguf")
    rounded = [kind for kind in types if kind not in direct]
    if not rounded:
        return found
    exact = exact_type(model)
    source = out / f"{exact}.gguf" if exact in direct else work / "source.gguf"
    try:
        if exact not in direct:
            on_file(rounded[0])
            convert(source, exact)
        importance = calibrate(source) if calibrate else None
        for kind in rounded:
            on_file(kind)
            target = out / f"{kind}.gguf"
            found[kind] = quantize(source, target, kind, threads=threads, importance=importance)
    finally:
        (work / "source.gguf").unlink(missing_ok=True)
    return found


def exact_type(model: Path) -> converter.OutputType:
    """Return the smallest type that keeps every weight of a model folder."""
    stored = matrix_types(weight_files(model))
    if stored == {"BF16"}:
        return "bf16"
    return "f16" if stored == {"F16"} else "f32"
