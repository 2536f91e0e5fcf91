"""What trackers of experiments write during a training, kept as the stage's output ``tracking``.

W&B in its offline mode and TensorBoard write folders; the output has them as ``wandb`` and
``tensorboard``. A tracker that reports to a server (W&B online, MLflow) leaves nothing to keep. W&B
does not record the console, which may show what a log does not.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmpipe.errors import StageError

TRACKING = "tracking"
"""The name of the output, and of the folder in which trackers write."""
WANDB, TENSORBOARD = "wandb", "tensorboard"
_RUNS = "offline-run-*"
"""The names of W&B's folders, one for each start of the training."""


def kept_trackers(block: Mapping[str, Any]) -> list[str]:
    """Return the trackers that an Axolotl block asks for and whose folders are kept."""
    wandb = block.get("use_wandb") or block.get("wandb_project")
    found = [WANDB] if wandb and block.get("wandb_mode") == "offline" else []
    return [*found, *([TENSORBOARD] if block.get("use_tensorboard") else [])]


def tracking_environment(work: Path, block: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables by which trackers write below a training's folder.

    Args:
        work: The folder.
        block: The settings of the training.
    """
    found, folder = {}, work / TRACKING
    if WANDB in kept_trackers(block):
        folder.mkdir(exist_ok=True)  # without it W&B writes elsewhere
        found = {
            "WANDB_DIR": str(folder),
            "WANDB_CACHE_DIR": str(work / "wandb-cache"),
            "WANDB_CONFIG_DIR": str(work / "wandb-config"),
            "WANDB_DATA_DIR": str(work / "wandb-data"),
            "WANDB_CONSOLE": "off",
        }
    if TENSORBOARD in kept_trackers(block):
        found["TENSORBOARD_LOGGING_DIR"] = str(folder / TENSORBOARD)
    return found


def tracking_notes(
    own: Mapping[str, Any], merged: Mapping[str, Any], env: Mapping[str, str]
) -> Iterator[str]:
    """Yield what is not kept of what trackers write.

    Args:
        own: The stage's own block, by which its outputs are known.
        merged: The same with the settings of its Axolotl file.
        env: The variables that the stage sets.
    """
    lost = [name for name in kept_trackers(merged) if name not in kept_trackers(own)]
    if lost:
        yield (
            f"what {' and '.join(lost)} write is not kept: set them in the axolotl block, not only "
            "in the axolotl_file"
        )
    mlflow = merged.get("use_mlflow") or merged.get("mlflow_experiment_name")
    told = merged.get("mlflow_tracking_uri") or {**os.environ, **env}.get("MLFLOW_TRACKING_URI")
    if mlflow and not told:
        yield (
            "MLflow has no server: its run is lost with the work folder; set mlflow_tracking_uri, "
            "such as http://127.0.0.1:5000"
        )


def keep_tracking(work: Path, target: Path, block: Mapping[str, Any]) -> None:
    """Copy what the trackers wrote.

    Args:
        work: The folder of the training.
        target: The output.
        block: The stage's own block.

    Raises:
        StageError: A tracker wrote nothing.
    """
    target.mkdir()
    for name in kept_trackers(block):
        written = work / TRACKING / name
        folders = sorted(written.glob(_RUNS)) if name == WANDB else [written]
        files = [(f, p) for f in folders for p in sorted(f.rglob("*")) if _is_file(p)]
        if not files:
            raise StageError(
                f"{name} wrote nothing, although the axolotl block asks for it",
                hint="the stage's log says why; is it switched off by a variable, as in "
                "WANDB_MODE=disabled?",
            )
        for folder, path in files:
            within = path.relative_to(folder.parent if name == WANDB else folder)
            copy = target / name / within
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
