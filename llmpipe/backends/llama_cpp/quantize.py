"""Quantize a GGUF of 16- or 32-bit weights, tensor by tensor, to a mixture such as ``q4_k_m``.

`llmpipe.backends.llama_cpp.mixtures` chooses the type of every tensor, ggml's kernels round the
weights. The tensors are byte for byte those of llama.cpp's ``llama-quantize``. Only some rows are
in memory at a time. About 3 s for 135M parameters on two cores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from llmpipe.backends.llama_cpp import ggml
from llmpipe.backends.llama_cpp.gguf_file import open_gguf
from llmpipe.backends.llama_cpp.gguf_file import reader as gguf_reader
from llmpipe.backends.llama_cpp.gguf_write import NewTensor, stored_bytes, write_gguf
from llmpipe.backends.llama_cpp.mixtures import (
    CONVERTED,
    DEFAULTS,
    EMBEDDING,
    FALLBACKS,
    NARROW,
    OUTPUT,
    WIDE,
    Choice,
    Traits,
    choose,
    requires_importance,
)
from llmpipe.errors import StageError

QUANTIZATION_VERSION = 2
"""The version of ggml's block formats."""

WEIGHTS = 1 << 20
"""How many weights a thread rounds at a time: 4 MB as float32."""

Importance = Mapping[str, Any]
"""By tensor how much each column matters, as float32: shape (width,), or (experts, width)."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a quantized file contains.

    Attributes:
        bits: the bits per weight over all tensors.
        tensors: the number of tensors.
        fallbacks: the names of the tensors whose rows are too narrow, by (wanted, written) type.
        without_importance: the quantized tensors that the importance matrix lacks.
    """

    bits: float
    tensors: int
    fallbacks: Mapping[tuple[str, str], tuple[str, ...]]
    without_importance: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {
            "bits_per_weight": round(self.bits, 4),
            "tensors": self.tensors,
            "fallbacks": {f"{a} → {b}": list(names) for (a, b), names in self.fallbacks.items()},
            "without_importance": list(self.without_importance),
        }


def quantize(
    source: Path,
    target: Path,
    mixture: str,
    *,
    threads: int,
    importance: Importance | None = None,
) -> Written:
    """Write ``source``, a GGUF of 16- or 32-bit weights, to ``target`` as ``mixture``.

    Raises:
        StageError: no tensor fits the type, the importance matrix lacks a tensor that needs it or
            is of another model, or weights are not finite.
        MissingDependencyError: xllamacpp is not installed.
    """
    from gguf import GGMLQuantizationType, LlamaFileType

    opened = gguf_reader(source)
    fields = {name: field.contents() for name, field in opened.fields.items()}
    shapes = {t.name: tuple(int(n) for n in reversed(t.shape)) for t in opened.tensors}
    choices = choose(mixture, Traits.read(fields), shapes, importance is not None)
    _check_fits(mixture, choices)
    weights = {} if importance is None else _checked(importance, mixture, choices, shapes)
    with ThreadPoolExecutor(threads) as pool:
        tensors = []
        for tensor in opened.tensors:
            shape, kind = tuple(int(n) for n in tensor.shape), tensor.tensor_type
            choice = choices.get(tensor.name)
            parts: Callable[[], Iterable[Any]] = partial(stored_bytes, opened, tensor)
            size = int(tensor.n_bytes)
            if choice and choice.type != kind.name:
                kind = GGMLQuantizationType[choice.type]
                rows = int(tensor.n_elements) // shape[0]
                size = rows * ggml.row_size(kind, shape[0])
                parts = partial(_rounded, tensor, kind, weights.get(tensor.name), pool, threads)
            tensors.append(NewTensor(tensor.name, shape, int(kind), size, parts))
        numbers = {
            "general.file_type": int(LlamaFileType[f"MOSTLY_{mixture.upper()}"]),
            "general.quantization_version": QUANTIZATION_VERSION,
        }
        if importance is not None:
            numbers["quantize.imatrix.entries_count"] = len(weights)
        write_gguf(target, opened, tensors, numbers=numbers)
    ends = {OUTPUT, EMBEDDING}  # their inputs are never measured, in llama.cpp neither
    lacking = sorted(choices.keys() - weights.keys() - ends) if importance is not None else []
    elements = sum(int(tensor.n_elements) for tensor in opened.tensors)
    return Written(
        8 * sum(tensor.size for tensor in tensors) / elements,
        len(tensors),
        _fallbacks(choices),
        tuple(lacking),
    )


def measured(path: Path) -> Written:
    """Return what a GGUF contains. Its fallbacks are those of the mixture that it says it is."""
    from gguf import LlamaFileType

    opened = open_gguf(path)
    tensors = [tensor for reader in opened.readers for tensor in reader.tensors]
    stored, weights = (sum(int(getattr(t, k)) for t in tensors) for k in ("n_bytes", "n_elements"))
    names = {int(kind): kind.name.removeprefix("MOSTLY_").lower() for kind in LlamaFileType}
    mixture = names.get(opened.fields.get("general.file_type", -1), "")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in tensors}
    choices = {}
    if mixture in DEFAULTS:
        found = choose(mixture, Traits.read(opened.fields), opened.shapes)
        choices = {name: choice for name, choice in found.items() if kinds[name] == choice.type}
    return Written(8 * stored / weights, len(tensors), _fallbacks(choices))


def described(mixture: str, written: Written) -> list[str]:
    """Return a sentence about the tensors that fell back, and one about those not calibrated."""
    found = []
    counts = {pair: len(names) for pair, names in written.fallbacks.items()}
    if counts:
        kinds = ", ".join(f"{n} {a} → {b}" for (a, b), n in sorted(counts.items()))
        found.append(
            f"{mixture}: {sum(counts.values())} of {written.tensors} tensors have rows that are "
            f"not a multiple of the {WIDE} or {NARROW} weights of a block, and got another type "
            f"({kinds}): {written.bits:.2f} bits per weight"
        )
    if written.without_importance:
        lacking = written.without_importance
        found.append(
            f"{mixture}: the importance matrix lacks {len(lacking)} tensors, such as {lacking[0]}, "
            "which were rounded without it"
        )
    return found


def _check_fits(mixture: str, choices: Mapping[str, Choice]) -> None:
    """Require that some tensor gets a type with the blocks of the mixture."""
    kinds = Counter(choice.type for choice in choices.values())
    if kinds.keys() == {"F16"}:
        raise _only_f16(mixture)
    if DEFAULTS[mixture] in FALLBACKS and not kinds.keys() & FALLBACKS.keys():
        got = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        raise StageError(
            f"{mixture}: the rows of every tensor are too narrow for its blocks of {WIDE} weights; "
            f"the file would contain {got or 'no such tensor'}",
            hint=f"name a type with blocks of {NARROW} weights: q8_0, q5_0, q4_0 or iq4_nl",
        )


def verify_blocks(path: Path, mixture: str) -> None:
    """Require that some tensor of a converted file has a type with blocks.

    Raises:
        StageError: none has.
    """
    if mixture not in CONVERTED and open_gguf(path).types <= {"F32", "F16", "BF16"}:
        path.unlink()  # no one is to take it for what its name says
        raise _only_f16(mixture)


def _only_f16(mixture: str) -> StageError:
    return StageError(
        f"{mixture}: the rows of every tensor are too narrow for blocks, even of {NARROW} "
        "weights; the file would contain F16 alone",
        hint="name f16",
    )


def _checked(
    importance: Importance,
    mixture: str,
    choices: Mapping[str, Choice],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, Any]:
    """Return the importance of each quantized tensor, shape (experts, width)."""
    import numpy as np

    found = {}
    for name, choice in choices.items():
        width, experts = shapes[name][-1], int(np.prod(shapes[name][:-2], dtype=int))
        if name not in importance:
            if requires_importance(mixture, name, choice.type):
                raise StageError(
                    f"{mixture}: the importance matrix lacks {name}, which needs it as "
                    f"{choice.type}",
                    hint="more calibration rows reach more experts; or use a larger type",
                )
            continue
        values = np.ascontiguousarray(importance[name], np.float32)
        if values.size != width * experts or not np.isfinite(values).all():
            raise StageError(
                f"the importance matrix has {values.size} values for {name} instead of "
                f"{width * experts} finite ones",
                hint="it belongs to another model",
            )
        found[name] = values.reshape(experts, width)
    return found


def _rounded(
    tensor: Any, kind: Any, importance: Any | None, pool: ThreadPoolExecutor, threads: int
) -> Iterator[Any]:
    """Yield the bytes of a tensor in another type, some rows at a time."""
    from gguf.quants import dequantize

    width = int(tensor.shape[0])
    stored = tensor.data.reshape(-1, tensor.data.shape[-1])
    rows_of_expert = int(tensor.shape[1])
    step = max(1, min(rows_of_expert, WEIGHTS // width))

    def some(begin: int) -> Any:
        expert, first = divmod(begin, rows_of_expert)
        end = begin + min(step, rows_of_expert - first)
        weights = None if importance is None else importance[expert]
        rows = dequantize(stored[begin:end], tensor.tensor_type).reshape(-1, width)
        return ggml.quantize_rows(kind, rows, weights)

    begins = [
        expert + first
        for expert in range(0, len(stored), rows_of_expert)
        for first in range(0, rows_of_expert, step)
    ]
    for batch in range(0, len(begins), 2 * threads):  # so few parts are in memory at a time
        for part in pool.map(some, begins[batch : batch + 2 * threads]):
            if part is None:
                raise StageError(
                    f"{tensor.name} has weights that are not finite as {kind.name}",
                    hint="the training diverged, or the weights exceed the type's range",
                )
            yield part


def _fallbacks(choices: Mapping[str, Choice]) -> dict[tuple[str, str], tuple[str, ...]]:
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for name, choice in choices.items():
        if choice.fell_back:
            pair = (choice.wanted, choice.type)
            found[pair] = (*found.get(pair, ()), name)
    return found
