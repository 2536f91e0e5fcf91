"""The config of a ``train`` stage, and the Axolotl keys that never shape its result.

The vocabulary under ``axolotl`` is Axolotl's and is not described here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from llmpipe.backends.axolotl.config import KeyPath
from llmpipe.contracts import ArtifactType, StageConfig

REPORTING_KEYS = frozenset(
    {
        "auto_resume_from_checkpoints",
        "comet_api_key",
        "comet_experiment_config",
        "comet_experiment_key",
        "comet_mode",
        "comet_online",
        "comet_project_name",
        "comet_workspace",
        "dataloader_num_workers",
        "dataloader_pin_memory",
        "dataloader_prefetch_factor",
        "dataset_keep_in_memory",
        "dataset_num_proc",
        "dataset_processes",
        "ddp_timeout",
        "gc_collect_steps",
        "gc_steps",
        "hf_mlflow_log_artifacts",
        "include_tkps",
        "include_tokens_per_second",
        "mlflow_experiment_name",
        "mlflow_run_name",
        "mlflow_tracking_uri",
        "num_dataset_shards_to_save",
        "otel_metrics_host",
        "otel_metrics_port",
        "profiler_steps",
        "profiler_steps_start",
        "strict",
        "torch_empty_cache_steps",
        "trackio_project_name",
        "trackio_run_name",
        "trackio_space_id",
        "use_comet",
        "use_mlflow",
        "use_otel_metrics",
        "use_tensorboard",
        "use_trackio",
        "use_wandb",
        "wandb_entity",
        "wandb_log_model",
        "wandb_mode",
        "wandb_name",
        "wandb_project",
        "wandb_run_id",
        "wandb_watch",
    }
)
"""Axolotl's keys for reporting and data loading, which do not change the result; not in the key."""

SAVING_KEYS = frozenset(
    {
        "logging_steps",
        "save_first_step",
        "save_only_model",
        "save_steps",
        "save_strategy",
        "save_total_limit",
        "saves_per_epoch",
    }
)
"""Axolotl's keys that say when a run saves and logs. Not in the key either, unless one of
`CHOOSING_KEYS` makes them decide which weights are kept."""

CHOOSING_KEYS = frozenset(
    {"early_stopping_patience", "load_best_model_at_end", "loss_watchdog_threshold"}
)
"""Axolotl's keys by which saved checkpoints or logged losses shape the result."""


class Launch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the training process is started."""

    launcher: Literal["python", "accelerate", "torchrun", "deepspeed", "ray"] = "python"
    """Axolotl's launcher: python for one process, accelerate or torchrun for several GPUs.
    Axolotl has no launchers deepspeed and ray; naming one tells what to write instead."""
    args: list[str] = []
    """Arguments for accelerate or torchrun, such as --nproc_per_node=8, or --nnodes=2 and
    --rdzv_endpoint=HOST:PORT on several machines."""
    env: dict[str, Annotated[str, msgspec.Meta(extra_json_schema={"writeOnly": True})]] = {}
    """Environment variables of the training process; secrets as ${secret:NAME}."""


class Reward(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A reward of `rl: grpo`: a function of your own, or a reward model."""

    file: str | None = None
    """A Python file, relative to the spec. It is copied alone, so it can import installed packages
    but no file beside it."""
    function: str | None = None
    """The function in file that returns a number for each completion."""
    model: str | None = None
    """A reward model: a stage that trained one (reward_model: true), a folder or a hub id."""
    weight: float = 1.0
    """How much the reward counts beside the others."""


class TrainConfig(StageConfig, frozen=True, kw_only=True):
    """Fine-tune a model with Axolotl. The output is ``adapter``, or ``model`` without one."""

    base_model: str
    """The model to train: a hub id, a folder, a GGUF file or a stage."""
    data: str
    """The rows to train on: a stage or a file in one of llmpipe's row formats."""
    eval_data: str | None = None
    """Rows for the loss during training; the model does not learn from them."""
    adapter_start: Literal["merge", "continue"] | None = None
    """If base_model is an adapter: merge it into its base first, or continue to train it."""
    continue_from: str | None = None
    """A checkpoint to go on from, such as `sft.checkpoint`: weights, optimizer, learning rate
    schedule and step count. `max_steps` and `num_epochs` count from the very beginning. For the
    weights alone, name the stage as base_model instead."""
    keep_checkpoint: bool = False
    """Also publish the last checkpoint, as output `checkpoint`, for another stage's
    `continue_from`. With Adam it takes three times the space of the trained weights."""
    axolotl: dict[str, Any] = {}
    """Axolotl's own keys, as the installed version spells them."""
    dataset: dict[str, Any] = {}
    """Keys of Axolotl's `datasets` entry for the rows, such as roles_to_train or type: alpaca."""
    rewards: list[Reward] = []
    """What marks the answers of `rl: grpo`. Functions are tried on three rows before training."""
    axolotl_file: str | None = None
    """An existing Axolotl YAML; keys under axolotl override it."""
    allow_unknown_axolotl: bool = False
    """Run although the installed Axolotl does not know some of the keys."""
    allow_untrained: list[Literal["end_of_turn", "rows", "speakers"]] = []
    """What may stay untrained, with a warning: end_of_turn (answers without the token that ends
    them: the model would not learn to stop), rows (rows without trained tokens), speakers (turns of
    a speaker that Axolotl does not know)."""
    launch: Launch = Launch()
    """How the training process is started."""


def made(config: TrainConfig) -> ArtifactType:
    """Return what a stage makes: ``adapter``, or ``model`` where all weights are trained.

    An ``axolotl_file`` is taken to train an adapter unless the block says ``adapter: null``: the
    types of a graph are known before any file is read.
    """
    if "adapter" in config.axolotl:
        return "adapter" if config.axolotl["adapter"] else "model"
    return "adapter" if config.axolotl_file is not None else "model"


def port_name(where: KeyPath) -> str:
    """Name the input that a path in the block is, by the path of keys to it."""
    return f"axolotl.{'.'.join(map(str, where))}"
