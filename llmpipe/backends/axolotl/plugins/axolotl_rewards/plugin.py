"""The plugin that wraps a training's reward functions (`axolotl_rewards.checked`)."""

from __future__ import annotations

from typing import Any

from axolotl.integrations.base import BasePlugin
from torch import nn

from . import FIELDS, checked, column_names


class RewardsPlugin(BasePlugin):  # type: ignore[misc]  # Axolotl is not typed
    """Hands reward functions a row's own columns, and checks what they return."""

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """Called by Axolotl when the trainer has been made. Reward models stay as they are."""
        texts = list(trainer.train_dataset[FIELDS])
        if trainer.eval_dataset is not None:
            texts += trainer.eval_dataset[FIELDS]
        columns = column_names(texts)
        trainer.reward_funcs = [
            function if isinstance(function, nn.Module) else checked(function, columns)
            for function in trainer.reward_funcs
        ]
