"""Estimate what the duration of a training grows with, from its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmpipe.backends.axolotl.config import with_defaults
from llmpipe.contracts import Effort

_COUNTED = ("max_steps", "num_epochs", "micro_batch_size", "gradient_accumulation_steps")
_INDIFFERENT = (
    "learning_rate", "lr_scheduler", "warmup_steps", "warmup_ratio", "weight_decay", "optimizer",
    "lora_alpha", "lora_dropout", "max_grad_norm", "adam_beta1", "adam_beta2", "adam_epsilon",
    "seed", "train_on_inputs", "neftune_noise_alpha",
)  # fmt: skip
_COVERED = frozenset(f"axolotl.{key}" for key in (*_COUNTED, *_INDIFFERENT))


def effort(fingerprint: Mapping[str, Any]) -> Effort | None:
    """Return rows that steps take, else passes over the data; None if a file may set either."""
    if fingerprint.get("axolotl_file") is not None:
        return None
    block = with_defaults(fingerprint["axolotl"])
    if steps := block.get("max_steps"):
        batch = float(block["micro_batch_size"]) * float(block["gradient_accumulation_steps"])
        return Effort(float(steps) * batch, grows=False, covers=_COVERED)
    return Effort(float(block["num_epochs"]), covers=_COVERED)
