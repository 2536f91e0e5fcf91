"""What others have published of the memory that large trainings take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.memory.cases import CHECKPOINTS, LLAMA, LORA, QLORA

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


LLAMA_2_7B: Mapping[str, Any] = {
    **LLAMA_8B,
    "intermediate_size": 11008,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
}


@dataclass(frozen=True, slots=True)
class Published:
    """One training whose memory is known.

    Attributes:
        name: what is trained, and how.
        model: the content of its ``config.json``.
        settings: Axolotl's keys.
        bytes: what it took.
        older: it ran in transformers of 2024 and plain PEFT. Their loss copied the logits once
            more, in float32, and they kept embeddings and head of a 4-bit base in float32, which
            Axolotl turns back to bfloat16. The comparison adds both.
    """

    name: str
    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    bytes: int
    older: bool = False

    def extra(self) -> dict[str, int]:
        """Return what the older libraries held besides."""
        if not self.older:
            return {}
        vocabulary, width = int(self.model["vocab_size"]), int(self.model["hidden_size"])
        tokens = int(self.settings["sequence_len"]) * int(self.settings["micro_batch_size"])
        return {
            "heads in float32": 2 * 2 * vocabulary * width,
            "logits once more": 4 * vocabulary * tokens,
        }


CONTEXTS: Mapping[int, int] = {12: 932, 16: 2551, 24: 5789, 40: 12264, 48: 15502, 80: 28454}
"""GB of a card → the longest row that QLoRA of Llama 3.1 8B took on it, with Hugging Face and
FlashAttention 2, batch 1, rank 32 (unsloth's README)."""

_LONG: Mapping[str, Any] = {
    **QLORA,
    **CHECKPOINTS,
    "lora_r": 32,
    "micro_batch_size": 1,
    "bf16": True,
    "attn_implementation": "flash_attention_2",
    "optimizer": "adamw_bnb_8bit",
}
_SHORT: Mapping[str, Any] = {
    **CHECKPOINTS,
    "bf16": True,
    "sequence_len": 1024,
    "micro_batch_size": 1,
    "attn_implementation": "flash_attention_2",
    "optimizer": "adamw_torch_fused",
}
"""LLaMA-Factory's table does not say how long its rows are."""

PUBLISHED = [
    *(
        Published(
            f"Llama 3.1 8B, QLoRA, {length:,} tokens (unsloth's README)",
            LLAMA_8B,
            {**_LONG, "sequence_len": length},
            size * 10**9,
            older=True,
        )
        for size, length in CONTEXTS.items()
    ),
    Published(
        "Llama 3.3 70B, QLoRA, 6,916 tokens (unsloth's README)",
        LLAMA_70B,
        {**_LONG, "sequence_len": 6916},
        80 * 10**9,
        older=True,
    ),
    Published("7B, all weights, bfloat16 (LLaMA-Factory)", LLAMA_2_7B, _SHORT, 60 * 10**9),
    Published("7B, LoRA (LLaMA-Factory)", LLAMA_2_7B, {**_SHORT, **LORA}, 16 * 10**9),
    Published("7B, QLoRA (LLaMA-Factory)", LLAMA_2_7B, {**_SHORT, **QLORA}, 6 * 10**9),
]

CARDS = (8, 12, 16, 24, 40, 48, 80)
"""GB of the cards for which the benchmark asks whether a published training fits."""
