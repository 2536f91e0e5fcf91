"""Names of Axolotl's settings: the most common ones, and their names in other trainers."""

from __future__ import annotations

from collections.abc import Mapping

COMMON = frozenset(
    {
        "adapter",
        "bf16",
        "gradient_accumulation_steps",
        "gradient_checkpointing",
        "learning_rate",
        "load_in_4bit",
        "lora_alpha",
        "lora_dropout",
        "lora_r",
        "lora_target_modules",
        "lr_scheduler",
        "max_steps",
        "micro_batch_size",
        "num_epochs",
        "optimizer",
        "rl",
        "sample_packing",
        "sequence_len",
        "train_on_inputs",
        "warmup_steps",
        "weight_decay",
    }
)

ELSEWHERE: Mapping[str, str] = {
    **dict.fromkeys(("lora_rank", "rank", "r", "peft_r"), "lora_r"),
    **dict.fromkeys(("alpha",), "lora_alpha"),
    **dict.fromkeys(("dropout",), "lora_dropout"),
    **dict.fromkeys(("target_modules", "lora_target", "lora_modules"), "lora_target_modules"),
    **dict.fromkeys(("lr",), "learning_rate"),
    **dict.fromkeys(("epochs", "num_train_epochs", "max_epochs"), "num_epochs"),
    **dict.fromkeys(
        ("per_device_train_batch_size", "train_batch_size", "batch_size_per_device"),
        "micro_batch_size",
    ),
    **dict.fromkeys(("per_device_eval_batch_size",), "eval_batch_size"),
    **dict.fromkeys(
        ("grad_accum", "grad_accum_steps", "accumulation_steps"), "gradient_accumulation_steps"
    ),
    **dict.fromkeys(
        ("max_seq_length", "max_seq_len", "max_length", "cutoff_len", "context_length", "seq_len"),
        "sequence_len",
    ),
    **dict.fromkeys(("lr_scheduler_type", "scheduler"), "lr_scheduler"),
    **dict.fromkeys(("model_name_or_path", "model_name", "model_id"), "base_model"),
    **dict.fromkeys(("finetuning_type", "peft_type", "peft"), "adapter"),
    **dict.fromkeys(("packing",), "sample_packing"),
}
"""Axolotl's key for each name in other trainers."""
