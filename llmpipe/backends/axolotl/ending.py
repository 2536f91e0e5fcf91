"""Read what the plugins of a training wrote down: how it ended, and what its labels are.

They are `axolotl_state` and `axolotl_labels` of `llmpipe.backends.axolotl.plugins`.

The trainer's own record is exact where printed lines are not: losses are unrounded and carry their
step, and the steps before a stopped run went on are in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from llmpipe.backends.axolotl.plugins.axolotl_labels import FILE as LABELS_FILE
from llmpipe.errors import StageError

END_FILE = "training_end.json"
"""The record's name inside a training's output folder."""

Curve = list[tuple[int, float]]
"""Points of [step, value]."""


class Ending(msgspec.Struct, frozen=True):
    """The trainer's record of a training that ran to its end or was stopped early."""

    step: int
    planned: int
    log: list[dict[str, Any]]
    stopped_early: bool
    """Whether ``early_stopping_patience`` ended it."""
    best_step: int | None
    """The step of the best evaluation; None where evaluations were not compared."""
    best_metric: str | None
    best_value: float | None
    loaded: str | None
    """The checkpoint whose weights were loaded at the end: ``checkpoint-40``, or None."""

    @property
    def kept_step(self) -> int:
        """The step whose weights the training left behind."""
        return int(self.loaded.rpartition("-")[2]) if self.loaded else self.step

    def curve(self, name: str) -> Curve:
        """Return what was logged under a name, such as ``loss`` or ``eval_loss``."""
        return [(int(entry["step"]), float(entry[name])) for entry in self.log if name in entry]


class Labels(msgspec.Struct, frozen=True):
    """What was found in the labels before the first step."""

    rows: int
    tokens: int
    trained_tokens: int
    warnings: list[str]
    error: str | None
    """Why the training was stopped."""
    hint: str | None


def read_labels(output: Path) -> Labels | None:
    """Read what was found in the labels; None where nothing, or nothing whole, was written down."""
    try:
        return msgspec.json.decode((output / LABELS_FILE).read_bytes(), type=Labels)
    except (OSError, msgspec.DecodeError):
        return None


def read_ending(output: Path) -> Ending:
    """Read the record in a training's output folder.

    Raises:
        StageError: nothing, or nothing whole, was written down.
    """
    try:
        return msgspec.convert(json.loads((output / END_FILE).read_bytes()), Ending)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise StageError(f"the training did not say how it ended: {error}") from error
