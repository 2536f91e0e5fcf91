"""Publish the last checkpoint of a training, and continue another training from one.

A checkpoint holds weights, optimizer, schedule, random state and step count, as the trainer wrote
them. Axolotl's own resuming reads it. Two things follow from that. ``max_steps`` and ``num_epochs``
count from the very beginning. A schedule that ended at learning rate 0, as a cosine does, gives the
first resumed step the rate 0; from the next step on, the rate is that of the new, longer schedule.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl.checkpoints import checkpoint_step, is_whole
from llmpipe.backends.axolotl.config import KeyPath
from llmpipe.contracts import Artifact, StageContext, write_json
from llmpipe.errors import StageError
from llmpipe.stages.train_config import TrainConfig
from llmpipe.stages.train_product import neutral_adapter_config

CHECKPOINT = "checkpoint"
WEIGHTS_ALONE = (
    "continue_from takes a checkpoint: write keep_checkpoint: true in that stage and "
    "STAGE.checkpoint here; to start from its weights alone, name the stage as base_model (an "
    "adapter with adapter_start: continue)"
)
STATE = "trainer_state.json"
MADE_FROM = "llmpipe.json"
"""The file of a published checkpoint with the digests of what it was trained on."""
_LEFT_OUT = ("training_args.bin", "README.md", "*.lock")
"""Files that resuming does not need: a pickle with paths of this machine, and a card."""
_MEASURED = ("memory", "runtime", "per_second", "per_sec")
"""Parts of the names of logged values that differ from run to run."""
_CHOOSING = ("load_best_model_at_end", "early_stopping_patience")


def checkpoint_problems(config: TrainConfig) -> Iterator[tuple[KeyPath, str]]:
    """Yield settings under which a checkpoint would be useless or not there."""
    block = config.axolotl
    if config.continue_from is not None and config.adapter_start == "continue":
        message = (
            "a checkpoint holds the adapter: remove adapter_start, and name the adapter's base"
        )
        yield ("continue_from",), message
    for key in ("resume_from_checkpoint", "auto_resume_from_checkpoints"):
        if config.continue_from is not None and block.get(key):
            yield ("axolotl", key), "is set by llmpipe: training goes on from continue_from"
    if not config.keep_checkpoint and config.continue_from is None:
        return
    for key in _CHOOSING:
        if block.get(key):
            yield ("axolotl", key), "chooses among checkpoints, of which only the last is kept"
    if config.keep_checkpoint and block.get("save_only_model"):
        yield ("axolotl", "save_only_model"), "a checkpoint without optimizer cannot be continued"
    if config.keep_checkpoint and block.get("save_strategy") in ("no", "best", False):
        yield ("axolotl", "save_strategy"), "saves no checkpoint of the last step"


def publish_checkpoint(
    ctx: StageContext[TrainConfig], output: Path, step: int, target: Path
) -> Path:
    """Copy the checkpoint of the last step to ``target``, without what differs between runs.

    Raises:
        StageError: There is none, or it is incomplete.
    """
    source = output / f"checkpoint-{step}"
    if not source.is_dir() or not is_whole(source):
        raise StageError(
            f"training left no whole checkpoint of its last step, {step}",
            hint="set save_strategy: steps, or remove keep_checkpoint",
        )
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    state = json.loads((target / STATE).read_text("utf-8"))
    state["best_model_checkpoint"] = None
    state["log_history"] = [
        {key: value for key, value in entry.items() if not any(part in key for part in _MEASURED)}
        for entry in state.get("log_history", [])
    ]
    write_json(target / STATE, state)
    write_json(target / MADE_FROM, _made_from(ctx))
    config = target / "adapter_config.json"
    if config.is_file():
        write_json(config, neutral_adapter_config(target))
    return target


def given_checkpoint(checkpoint: Artifact, settings: Mapping[str, Any]) -> Path:
    """Return the folder to resume from.

    Raises:
        StageError: It is not a whole checkpoint, or no steps are left to train.
    """
    path = checkpoint.path
    if not path.is_dir() or not is_whole(path):
        raise StageError(
            f"{checkpoint.label} is not a whole checkpoint: it lacks {STATE}, weights, the "
            "optimizer or the schedule",
            hint="name the output `checkpoint` of a train stage with keep_checkpoint: true",
        )
    step, planned = checkpoint_step(path), settings.get("max_steps")
    if isinstance(planned, int) and 0 < planned <= step:
        raise no_steps_left(checkpoint.label, step, planned)
    return path


def no_steps_left(label: str, step: int, planned: int) -> StageError:
    """Return the error that a checkpoint is at the planned end already."""
    return StageError(
        f"{label} is at step {step}, and the settings plan {planned}: nothing is left to train",
        hint="max_steps and num_epochs count from the very beginning: raise them",
    )


def _made_from(ctx: StageContext[TrainConfig]) -> dict[str, str]:
    return {port: ctx.input(port).digest for port in ("data", "base_model")}


def of_others(ctx: StageContext[TrainConfig], checkpoint: Path) -> list[str]:
    """Return warnings where the checkpoint was trained on other rows or another base model."""
    told = checkpoint / MADE_FROM
    before = json.loads(told.read_text("utf-8")) if told.is_file() else {}
    now, warnings = _made_from(ctx), []
    if before.get("data", now["data"]) != now["data"]:
        warnings.append(
            "the rows are not those of the checkpoint's training: the trainer skips as many "
            "batches of them as the checkpoint has steps"
        )
    if before.get("base_model", now["base_model"]) != now["base_model"]:
        warnings.append("the base model is not the one of the checkpoint's training")
    return warnings


def continued(checkpoint: Path, step: int) -> str:
    """Return what is said of a training that goes on from a checkpoint."""
    state = json.loads((checkpoint / STATE).read_text("utf-8"))
    rates = [e["learning_rate"] for e in state.get("log_history", []) if "learning_rate" in e]
    text = f"going on from step {step} with its optimizer and schedule"
    if step >= int(state.get("max_steps") or step + 1) and rates and rates[-1] < max(rates):
        text += (
            "; its schedule had come to its end, so the first step may have a learning rate near "
            "0, and the next ones that of the longer schedule"
        )
    return text


def place_checkpoint(
    ctx: StageContext[TrainConfig], settings: Mapping[str, Any], folder: Path
) -> tuple[Path, list[str]]:
    """Copy the checkpoint into a folder that trains elsewhere.

    Returns:
        Its name there, and what the user should know of a training that goes on from it.

    Raises:
        StageError: It is not a whole checkpoint, or no steps are left to train.
    """
    name = "continue-from"
    given = given_checkpoint(ctx.input(CHECKPOINT), settings)
    shutil.copytree(given, folder / name, dirs_exist_ok=True)
    told = continued(given, checkpoint_step(given))
    return Path(name), [told, *of_others(ctx, given)]
