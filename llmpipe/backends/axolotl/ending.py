"""Read the records of a training's plugins: how it ended, and the check of its labels.

The plugins are `axolotl_state` and `axolotl_labels` of `llmpipe.backends.axolotl.plugins`.

Unlike printed lines, the trainer's own record is exact: losses are unrounded and have their step,
and it includes the steps before a run was resumed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from llmpipe.backends.axolotl.plugins.axolotl_labels import FILE as LABELS_FILE
from llmpipe.errors import StageError

END_FILE = "training_end.json"
"""The file name of the record in a training's output folder."""

Curve = list[tuple[int, float]]
"""Points of [step, value]."""


class Ending(msgspec.Struct, frozen=True):
    """The trainer's record of a training that completed or was stopped early."""

    step: int
    planned: int
    log: list[dict[str, Any]]
    stopped_early: bool
    """Whether ``early_stopping_patience`` ended it."""
    best_step: int | None
    """The step of the best evaluation; None if evaluations were not compared."""
    best_metric: str | None
    best_value: float | None
    loaded: str | None
    """The checkpoint whose weights were loaded at the end: ``checkpoint-40``, or None."""

    @property
    def kept_step(self) -> int:
        """The step of the final weights."""
        return int(self.loaded.rpartition("-")[2]) if self.loaded else self.step

    def curve(self, name: str) -> Curve:
        """Return the logged values of a name, such as ``loss`` or ``eval_loss``, by step."""
        return [(int(entry["step"]), float(entry[name])) for entry in self.log if name in entry]


class Labels(msgspec.Struct, frozen=True):
    """The result of the check of labels before the first step."""

    rows: int
    tokens: int
    trained_tokens: int
    warnings: list[str]
    error: str | None
    """Why the training was stopped."""
    hint: str | None
    shown: list[str] = []
    """The first training rows, what is trained between ⟦ and ⟧."""


def read_labels(output: Path) -> Labels | None:
    """Read the result of the check of labels, or None if there is no complete one."""
    try:
        return msgspec.json.decode((output / LABELS_FILE).read_bytes(), type=Labels)
    except (OSError, msgspec.DecodeError):
        return None


def read_ending(output: Path) -> Ending:
    """Read the record in a training's output folder.

    Raises:
        StageError: There is no complete record.
    """
    try:
        return msgspec.convert(json.loads((output / END_FILE).read_bytes()), Ending)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise StageError(f"the training left no record of its end: {error}") from error
