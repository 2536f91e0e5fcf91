"""Quick bounds on what a training takes, from the numbers in ``config.json`` alone.

They spare the seconds of an exact estimate: what is within the upper bound fits, and what exceeds
the lower bound does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PER_PARAMETER = 24
"""Bytes: float32 weights, gradients, Adam's two states, and temporary copies of two of them."""

PER_LOGIT = 20
"""Bytes: 12 at the peak of a step, and copies in float32 of those in 16 bits."""

PER_WIDTH, PER_INNER = 100, 32
"""Bytes that a layer keeps for each token and each number of its hidden state, and of its inner
one, in float32 (Korthikanti et al., arXiv:2205.05198, count 34 for both in 16 bits)."""

ADAPTER = 1.6
"""How much more an adapter's own layers make a layer keep."""

LEAST: Mapping[str, float] = {"qlora": 0.53, "lora": 2.0, "full": 6.0}
"""Bytes for each parameter that a training takes at the least: weights, gradients, states; NF4 with
scales that are quantized themselves takes 4.127 bits (Dettmers et al., arXiv:2305.14314)."""

OVERHEAD = 2 * 10**9
"""What the process and a GPU's libraries take."""


GATED = frozenset(
    {
        "gemma",
        "gemma2",
        "gemma3_text",
        "granite",
        "llama",
        "mistral",
        "olmo2",
        "phi3",
        "qwen2",
        "qwen3",
    }
)
"""The values of ``model_type`` whose every layer has attention and three matrices of the inner
size. Others may have fewer parameters than `lower_bound` counts."""


def surely_within(model: Mapping[str, Any], document: Mapping[str, Any], limit: int) -> bool:
    """Return whether a training plainly needs no more than ``limit`` bytes."""
    bound = upper_bound(model, document)
    return bound is not None and bound <= limit


def method_of(document: Mapping[str, Any]) -> str:
    """Return the method of a training, as `LEAST` names it."""
    if not document.get("adapter"):
        return "full"
    rounded = any(document.get(key) for key in ("load_in_4bit", "load_in_8bit", "gptq"))
    return "qlora" if rounded else "lora"


def least_of(document: Mapping[str, Any]) -> float:
    """Return the bytes for each parameter that a training takes at the least."""
    method = method_of(document)
    if method == "full" and document.get("unfrozen_parameters"):
        return 2.0  # the other parameters have neither gradients nor states
    if method == "full" and "adam" not in str(document.get("optimizer") or "adam"):
        return 4.0  # SGD and Adafactor keep next to nothing
    return LEAST[method]


def is_sharded(document: Mapping[str, Any]) -> bool:
    """Return whether a training is spread over devices, or over main memory as well."""
    return any(document.get(key) for key in ("deepspeed", "fsdp", "fsdp_config"))


def lower_bound(model: Mapping[str, Any], document: Mapping[str, Any]) -> int:
    """Return fewer bytes than a training takes on one device; 0 where that is not known."""
    text = _text(model)
    try:
        width, layers = int(text["hidden_size"]), int(text["num_hidden_layers"])
        inner, vocabulary = int(text["intermediate_size"]), int(text["vocab_size"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0
    known = text.get("model_type") in GATED and not model.get("quantization_config")
    if is_sharded(document) or not known:
        return 0
    parameters = layers * (2 * width * width + 3 * width * inner) + vocabulary * width
    return int(least_of(document) * parameters)


def upper_bound(model: Mapping[str, Any], document: Mapping[str, Any]) -> int | None:
    """Return more bytes than a training can take, or None where the model is of an unknown form."""
    text = _text(model)
    try:
        width, layers = int(text["hidden_size"]), int(text["num_hidden_layers"])
        vocabulary, inner = int(text["vocab_size"]), int(text["intermediate_size"])
        heads = int(text["num_attention_heads"])
        rows, length = int(document["micro_batch_size"]), int(document["sequence_len"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if any("expert" in str(key) for key in text) or min(width, layers, inner, heads, length) <= 0:
        return None
    models = 2 if document.get("rl") else 1
    pairs = 2 if document.get("rl") or document.get("reward_model") else 1
    tokens = rows * length * pairs
    parameters = layers * (4 * width * width + 3 * width * inner) + 2 * vocabulary * width
    activations = tokens * layers * (PER_WIDTH * width + PER_INNER * inner)
    if document.get("adapter"):
        activations = int(ADAPTER * activations)
    scores = 4 * 4 * layers * heads * tokens * length if _is_eager(document) else 16 * tokens**2
    total = PER_PARAMETER * parameters * models + activations + scores
    return total + models * PER_LOGIT * tokens * vocabulary + OVERHEAD


def _text(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a configuration that is about text."""
    inner = model.get("text_config")
    return inner if isinstance(inner, Mapping) else model


def _is_eager(document: Mapping[str, Any]) -> bool:
    return bool(document.get("attn_implementation") == "eager" or document.get("eager_attention"))
