"""What trackers of experiments write during a training, kept as the stage's output ``tracking``.

W&B in its offline mode, TensorBoard, and MLflow without a server write folders; the output has them
as ``wandb``, ``tensorboard`` and ``mlflow``. A tracker that reports to a server leaves nothing to
keep. W&B does not record the console, which may show what a log does not.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl.config import BlockProblem
from llmpipe.errors import StageError

TRACKING = "tracking"
"""The name of the output, and of the folder in which trackers write."""
WANDB, TENSORBOARD, MLFLOW = "wandb", "tensorboard", "mlflow"
MLFLOW_URI = "MLFLOW_TRACKING_URI"
_RUNS = "offline-run-*"
"""The names of W&B's folders, one for each start of the training."""
_METRICS = "*/*/metrics/**/*"
"""The files with the metrics of MLflow's runs, by experiment and run."""
_WHY = (
    "the stage's log says why; is it switched off by a variable, as in WANDB_MODE=disabled? "
    "`run --force` trains again"
)
_CREDENTIALS = re.compile(r"://[^/@\s]*@")


def kept_trackers(block: Mapping[str, Any], env: Mapping[str, str]) -> list[str]:
    """Return the trackers whose folders are kept.

    Args:
        block: The Axolotl block that asks for them.
        env: The variables that the stage sets.
    """
    wandb = block.get("use_wandb") or block.get("wandb_project")
    mlflow = block.get("use_mlflow") or block.get("mlflow_experiment_name")
    asked = {
        WANDB: wandb and block.get("wandb_mode") == "offline",
        TENSORBOARD: block.get("use_tensorboard"),
        MLFLOW: mlflow and not block.get("mlflow_tracking_uri") and MLFLOW_URI not in env,
    }
    return [name for name, wanted in asked.items() if wanted]


def tracking_environment(
    work: Path, block: Mapping[str, Any], env: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables by which trackers write below a training's folder.

    Args:
        work: The folder.
        block: The settings of the training.
        env: The variables that the stage sets.
    """
    found, folder, kept = {}, work / TRACKING, kept_trackers(block, env)
    if WANDB in kept:
        folder.mkdir(exist_ok=True)  # without it W&B writes elsewhere
        found = {
            "WANDB_DIR": str(folder),
            "WANDB_CACHE_DIR": str(work / "wandb-cache"),
            "WANDB_CONFIG_DIR": str(work / "wandb-config"),
            "WANDB_DATA_DIR": str(work / "wandb-data"),
            "WANDB_CONSOLE": "off",
        }
    if TENSORBOARD in kept:
        found["TENSORBOARD_LOGGING_DIR"] = str(folder / TENSORBOARD)
    if MLFLOW in kept:
        found[MLFLOW_URI] = (folder / MLFLOW).as_uri()
    uri = str(block.get("mlflow_tracking_uri") or env.get(MLFLOW_URI) or "")
    if MLFLOW in kept or (uri and ("://" not in uri or uri.startswith("file:"))):
        found["MLFLOW_ALLOW_FILE_STORE"] = "true"  # without it MLflow refuses a folder
    return found


def require_no_credentials(block: Mapping[str, Any], label: str) -> None:
    """Require that MLflow's address has no credentials, which logs and records would show.

    In a spec they are refused before; an Axolotl file may have them.

    Args:
        block: The settings of the training.
        label: The file's name.

    Raises:
        StageError: It has.
    """
    if _CREDENTIALS.search(str(block.get("mlflow_tracking_uri") or "")):
        raise StageError(
            f"{label}: mlflow_tracking_uri: the address has credentials, which logs would show",
            hint="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in launch.env by "
            "${secret:NAME}",
        )


def tracking_problems(
    own: Mapping[str, Any], merged: Mapping[str, Any], env: Mapping[str, str]
) -> Iterator[BlockProblem]:
    """Yield trackers whose folders the stage's outputs promise, and its training would not write.

    Args:
        own: The stage's own block, by which its outputs are known.
        merged: The same with the settings of its Axolotl file.
        env: The variables that the stage sets.
    """
    if MLFLOW in kept_trackers(own, env) and MLFLOW not in kept_trackers(merged, env):
        key = "mlflow_tracking_uri"  # all else that decides is in the block, which comes first
        yield BlockProblem(
            (key,),
            f"the stage declares the output {TRACKING!r} with a folder of MLflow, which would "
            "report to this address instead",
            f"repeat {key} in the axolotl block; {key}: null there keeps a folder",
        )


def tracking_notes(
    own: Mapping[str, Any], merged: Mapping[str, Any], env: Mapping[str, str]
) -> Iterator[str]:
    """Yield what is not kept of what trackers write.

    Args:
        own: The stage's own block, by which its outputs are known.
        merged: The same with the settings of its Axolotl file.
        env: The variables that the stage sets.
    """
    lost = [name for name in kept_trackers(merged, env) if name not in kept_trackers(own, env)]
    if lost:
        yield (
            f"what {' and '.join(lost)} write is not kept: set them in the axolotl block, not only "
            "in the axolotl_file"
        )
    if MLFLOW in kept_trackers(merged, env) and os.environ.get(MLFLOW_URI):
        yield (
            f"{MLFLOW_URI} of this environment is not used: MLflow writes a folder; to report to a "
            f"server, set mlflow_tracking_uri, or {MLFLOW_URI} in launch.env"
        )


def keep_tracking(work: Path, target: Path, kept: Sequence[str]) -> list[str]:
    """Copy what the trackers wrote; return which of them wrote nothing.

    A file says so in the output, which must not look like a run. The training is not lost by that.

    Args:
        work: The folder of the training.
        target: The output.
        kept: The trackers.
    """
    target.mkdir()
    silent = []
    for name in kept:
        written = work / TRACKING / name
        folders = sorted(written.glob(_RUNS)) if name == WANDB else [written]
        files = [(f, p) for f in folders for p in sorted(f.rglob("*")) if _is_file(p)]
        if not files or (name == MLFLOW and not any(written.glob(_METRICS))):
            silent.append(f"{name} wrote nothing, although the axolotl block asks for it: {_WHY}")
            (target / f"{name}.txt").write_text(f"{silent[-1]}\n", "utf-8")
            continue
        for folder, path in files:
            within = path.relative_to(folder.parent if name == WANDB else folder)
            copy = target / name / within
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    for metrics in target.glob(f"{MLFLOW}/*/*/metrics"):
        artifacts = metrics.with_name("artifacts")  # MLflow finds no run without this folder
        if not artifacts.exists():
            artifacts.mkdir()
            (artifacts / ".keep").touch()
    return silent


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
