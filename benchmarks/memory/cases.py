"""The small trainings that are run on fake tensors and for real, and how one is described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LORA = {"adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True}
QLORA = {**LORA, "adapter": "qlora", "load_in_4bit": True}
CHECKPOINTS = {"gradient_checkpointing": True}

LLAMA: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 8000,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
QWEN: Mapping[str, Any] = {
    **LLAMA,
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "head_dim": 32,
    "tie_word_embeddings": True,
}
GEMMA: Mapping[str, Any] = {
    **LLAMA,
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "head_dim": 32,
    "sliding_window": 128,
}

CASES: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "full, float32": (LLAMA, {}),
    "full, bfloat16": (LLAMA, {"bf16": True}),
    "full, bfloat16, checkpointing": (LLAMA, {"bf16": True, **CHECKPOINTS}),
    "full, eager attention": (LLAMA, {"attn_implementation": "eager"}),
    "full, 4 micro-batches a step": (LLAMA, {"bf16": True, "gradient_accumulation_steps": 4}),
    "full, fused Adam": (LLAMA, {"optimizer": "adamw_torch_fused"}),
    "full, 8-bit Adam": (LLAMA, {"bf16": True, "optimizer": "adamw_bnb_8bit"}),
    "full, Adafactor": (LLAMA, {"optimizer": "adafactor"}),
    "full, SGD": (LLAMA, {"optimizer": "sgd"}),
    "full, packed": (LLAMA, {"sample_packing": True, "attn_implementation": "sdpa"}),
    "full, 1 row of 1024": (LLAMA, {"micro_batch_size": 1, "sequence_len": 1024}),
    "LoRA, float32": (LLAMA, LORA),
    "LoRA, bfloat16, checkpointing": (LLAMA, {**LORA, "bf16": True, **CHECKPOINTS}),
    "LoRA, 8-bit weights": (LLAMA, {**LORA, "bf16": True, "load_in_8bit": True}),
    "DoRA, bfloat16": (LLAMA, {**LORA, "bf16": True, "peft_use_dora": True}),
    "QLoRA, bfloat16": (LLAMA, {**QLORA, "bf16": True}),
    "QLoRA, checkpointing": (LLAMA, {**QLORA, "bf16": True, **CHECKPOINTS}),
    "DPO, LoRA": (LLAMA, {**LORA, "bf16": True, "rl": "dpo"}),
    "Qwen3, tied head, LoRA": (QWEN, {**LORA, "bf16": True}),
    "Gemma 2, soft-capped, full": (GEMMA, {"bf16": True, "attn_implementation": "eager"}),
}


def document(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what Axolotl would be run with."""
    return {
        "datasets": [{"path": "rows.parquet", "ds_type": "parquet", "type": "chat_template"}],
        "val_set_size": 0,
        "output_dir": "output",
        "dataset_prepared_path": "prepared",
        "sequence_len": 256,
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "num_epochs": 1,
        "learning_rate": 1e-4,
        "optimizer": "adamw_torch",
        "bf16": False,
        **dict.fromkeys(
            ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel"), False
        ),
        **settings,
    }
