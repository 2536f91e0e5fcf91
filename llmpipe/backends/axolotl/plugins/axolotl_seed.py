"""An Axolotl plugin that makes a training depend on its configuration alone.

It seeds every random number before a model is loaded. Axolotl hands its ``seed`` to the trainer
only, which is made after the adapter: the first values of a LoRA adapter (and of a new head or a
new token's embedding) then differ from run to run.

It keeps 4-bit layers as they are when they are evaluated on a CPU (`keep_4bit_layers`).

This file is copied beside each configuration that llmpipe compiles and needs nothing of llmpipe.
"""

from __future__ import annotations

from typing import Any

from axolotl.integrations.base import BasePlugin
from bitsandbytes.nn import modules
from transformers import set_seed


class SeedPlugin(BasePlugin):  # type: ignore[misc]  # Axolotl is not typed
    """Seeds Python, NumPy and PyTorch with the configuration's ``seed``."""

    def pre_model_load(self, cfg: Any) -> None:
        """Called by Axolotl right before it loads the base model."""
        set_seed(cfg.seed if cfg.seed is not None else 42)
        keep_4bit_layers()


def keep_4bit_layers() -> None:
    """Keep bitsandbytes from making layers that repack their weights during evaluation.

    On a CPU with AVX512-BF16 a 4-bit layer repacks its weights in the first forward pass without
    gradients. From then on it computes in bfloat16 and lets no gradient through, also when it
    trains again (bitsandbytes 0.50): an evaluation before the last step spoils the training.
    """
    modules.has_avx512bf16 = lambda: False  # type: ignore[attr-defined]  # it is not exported
