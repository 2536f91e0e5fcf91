"""An Axolotl plugin that writes down how a training ended, and lets early stopping go on.

The trainer keeps its state (the log with unrounded losses, the best evaluation, why it stopped) in
memory and in checkpoints, and the last checkpoint may be older than the end. A run that goes on
from a checkpoint forgets how many evaluations in a row were no better: here it is told. This file
is copied beside each configuration that llmpipe compiles and needs nothing of llmpipe.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from axolotl.integrations.base import BasePlugin
from transformers import EarlyStoppingCallback, TrainerCallback

FILE = "training_end.json"
"""What is written into the configuration's ``output_dir``."""


class StatePlugin(BasePlugin):  # type: ignore[misc]  # Axolotl is not typed
    """Adds `KeepState` to the trainer."""

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any]:
        """Called by Axolotl when the trainer has been made."""
        return [KeepState(trainer)]


class KeepState(TrainerCallback):  # type: ignore[misc]  # nor is transformers
    """Restores early stopping when a run goes on, and writes how training ended."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Called by the trainer before its first step, with the state of the checkpoint if any."""
        if state.global_step:
            args.eval_on_start = False  # this step was evaluated before the run was stopped
        saved = (state.stateful_callbacks or {}).get(EarlyStoppingCallback.__name__) or {}
        counter = (saved if isinstance(saved, dict) else saved[0]).get("attributes", {})
        for callback in self._early_stopping():
            for name, value in counter.items():
                setattr(callback, name, value)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Called by the trainer as the last of a training."""
        if not state.is_world_process_zero:
            return
        loaded = state.best_model_checkpoint if args.load_best_model_at_end else None
        end = {
            "step": state.global_step,
            "planned": state.max_steps,
            "log": state.log_history,
            "stopped_early": any(map(_has_lost_patience, self._early_stopping())),
            "best_step": state.best_global_step,
            "best_metric": args.metric_for_best_model,
            "best_value": state.best_metric,
            "loaded": Path(loaded).name if loaded else None,
        }
        (Path(args.output_dir) / FILE).write_text(json.dumps(end), "utf-8")

    def _early_stopping(self) -> list[Any]:
        callbacks = self.trainer.callback_handler.callbacks
        return [callback for callback in callbacks if isinstance(callback, EarlyStoppingCallback)]


def _has_lost_patience(callback: Any) -> bool:
    counted: int = callback.early_stopping_patience_counter
    return bool(counted >= callback.early_stopping_patience)
