"""What a model takes while it is loaded: in transformers, or served by llama.cpp.

Each function returns parts in bytes by what they are. `heaviest` chooses among the phases of a
stage, of which one follows the other. The constants were measured by ``benchmarks.memory`` on a
CPU, as proportional set size: pages of a file that is mapped count as memory, although the system
can drop them.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmpipe.contracts import Hardware
from llmpipe.estimate.weights import Weights

Parts = dict[str, int]

MEGABYTE = 10**6

TORCH = 440 * MEGABYTE
"""A process that has imported torch and transformers and read a tokenizer."""

COMPUTING = 120 * MEGABYTE
"""What it imports and keeps besides once a model computes."""

PLAIN = 30 * MEGABYTE
"""A process of Python without them, with what llmpipe imports."""

SERVER = 35 * MEGABYTE
"""The process of llama.cpp's server: Python and the library."""

UBATCH = 512
"""Tokens that llama.cpp computes in one step at most."""

LOGITS = 2048
"""Tokens whose logits a score holds at once."""

PROMPT = 256
"""Tokens that a prompt is taken to have where its text is not known yet."""


def heaviest(*phases: Parts) -> Parts:
    """Return the phase that takes most, without parts of no size."""
    found = max(phases, key=lambda phase: sum(phase.values()))
    return {name: size for name, size in found.items() if size}


def in_transformers(weights: Weights, hardware: Hardware) -> Parts:
    """Return what a loaded model takes of the device that it computes on."""
    return {"weights": number(hardware) * weights.parameters}


def number(hardware: Hardware) -> int:
    """Return the bytes of a number of a model that computes: float32 on a CPU."""
    return 2 if hardware.kind == "cuda" and hardware.dtype != "float32" else 4


def scores(weights: Weights) -> Parts:
    """Return the most logits of a batch, in float32, with the copy that the loss takes."""
    return {"logits": 2 * 4 * LOGITS * weights.vocabulary}


def answers(weights: Weights, hardware: Hardware, rows: int, new: int) -> Parts:
    """Return the cache of rows that are answered together."""
    return {"KV cache": rows * weights.cache(PROMPT + new, number(hardware))}


def in_llama_cpp(weights: Weights, *, context: int, slots: int = 1, batch: int = UBATCH) -> Parts:
    """Return what llama.cpp's server takes of main memory.

    Args:
        weights: those of the GGUF.
        context: tokens of a conversation.
        slots: conversations at the same time, each with a cache of its own.
        batch: tokens that are computed in one step.
    """
    tokens = min(batch, context, UBATCH)
    return {
        "weights": weights.stored,
        "KV cache": slots * weights.cache(context, 2),
        "compute buffers": 4 * tokens * (12 * weights.width + 3 * weights.inner),
        "vocabulary": VOCABULARY * weights.vocabulary,
        "server": SERVER,
    }


VOCABULARY = 300
"""Bytes that llama.cpp keeps for a token's text, its merge and its place in maps."""


def together(parts: Mapping[str, int], *others: Mapping[str, int]) -> Parts:
    """Return parts together; those of the same name add up."""
    found = dict(parts)
    for other in others:
        for name, size in other.items():
            found[name] = found.get(name, 0) + size
    return found
