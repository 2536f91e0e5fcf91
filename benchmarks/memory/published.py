"""What others have published of the memory that large trainings take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.memory.cases import CHECKPOINTS, LLAMA, QLORA

GIB = 2**30

LLAMA_8B: Mapping[str, Any] = {
    **LLAMA,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}
LLAMA_70B: Mapping[str, Any] = {
    **LLAMA_8B,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
}


@dataclass(frozen=True, slots=True)
class Published:
    """One training whose memory is known.

    ``heads_in_float32`` says that embeddings and head are kept in float32, as PEFT leaves them for
    4-bit bases; Axolotl turns them back to bfloat16.
    """

    name: str
    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    bytes: int
    source: str
    heads_in_float32: bool = False


UNSLOTH = "unsloth's README, context lengths of Hugging Face + FlashAttention-2"
_LONG = {**QLORA, "lora_r": 32, "micro_batch_size": 1, "bf16": True, **CHECKPOINTS}
_LONG |= {"attn_implementation": "flash_attention_2", "optimizer": "adamw_bnb_8bit"}

CONTEXTS: Mapping[int, int] = {12: 932, 16: 2551, 24: 5789, 40: 12264, 48: 15502, 80: 28454}
"""GB of a card → the longest row that QLoRA of Llama 3.1 8B took on it."""

PUBLISHED = [
    Published(
        f"Llama 3.1 8B, QLoRA, {length:,} tokens",
        LLAMA_8B,
        {**_LONG, "sequence_len": length},
        size * GIB,
        UNSLOTH,
        heads_in_float32=True,
    )
    for size, length in CONTEXTS.items()
] + [
    Published(
        "Llama 3.3 70B, QLoRA, 6,916 tokens",
        LLAMA_70B,
        {**_LONG, "sequence_len": 6916},
        80 * GIB,
        UNSLOTH,
        heads_in_float32=True,
    )
]
