"""An Axolotl plugin that seeds every random number before a model is loaded.

Axolotl hands its ``seed`` to the trainer only, which is made after the adapter: the first values
of a LoRA adapter (and of a new head or a new token's embedding) then differ from run to run. This
file is copied beside each configuration that llmpipe compiles and needs nothing of llmpipe.
"""

from __future__ import annotations

from typing import Any

from axolotl.integrations.base import BasePlugin
from transformers import set_seed


class SeedPlugin(BasePlugin):  # type: ignore[misc]  # Axolotl is not typed
    """Seeds Python, NumPy and PyTorch with the configuration's ``seed``."""

    def pre_model_load(self, cfg: Any) -> None:
        """Called by Axolotl right before it loads the base model."""
        set_seed(cfg.seed if cfg.seed is not None else 42)
