"""Compile what a stage says into one Axolotl configuration: a pure function and its YAML.

The order of authority, weakest first: `DEFAULTS`, the person's own Axolotl file, the stage's
``axolotl:`` block, what llmpipe owns (`OWNED`), and what this machine cannot do. Nothing here
reads a file, imports Axolotl or checks its vocabulary: that is `llmpipe.backends.axolotl.check`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmpipe.backends.device import Device
from llmpipe.errors import StageError

KeyPath = tuple[str | int, ...]

OWNED: Mapping[str, str] = {
    "base_model": "write the stage's own field base_model",
    "datasets": "write the stage's own field data",
    "test_datasets": "write the stage's own field eval_data",
    "val_set_size": "split the data in a format stage and write eval_data: STAGE.eval",
    "output_dir": "llmpipe keeps the result: llmpipe get SPEC STAGE PATH copies it out",
    "dataset_prepared_path": "llmpipe keeps the prepared data and never uses a stale one",
    "allow_untrained": "write the stage's own field allow_untrained",
}
"""The Axolotl keys that llmpipe sets itself, and what to write in their place."""

DEFAULTS: Mapping[str, Any] = {
    "sequence_len": 1024,
    "sample_packing": False,
    "micro_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "num_epochs": 1,
    "optimizer": "adamw_torch",
    "lr_scheduler": "cosine",
    "learning_rate": 2e-4,
    "logging_steps": 1,
    "seed": 42,
}
"""What holds where neither the block nor the file says otherwise."""

LORA_DEFAULTS: Mapping[str, Any] = {
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "lora_target_linear": True,
}
"""Further defaults for ``adapter: lora`` and ``adapter: qlora`` that start a new adapter."""

PREFERENCE = ("dpo", "ipo", "simpo")
"""The values of ``rl`` that train on pairs of a chosen and a rejected answer: those driven."""

FULL_LEARNING_RATE = 2e-5
"""The default learning rate where all weights are trained."""

OWN_PLUGINS = (
    "axolotl_seed.SeedPlugin",
    "axolotl_state.StatePlugin",
    "axolotl_labels.plugin.LabelsPlugin",
    "axolotl_startup.StartupPlugin",
    "axolotl_logits.LogitsPlugin",
)
"""What stands before the user's own plugins in every configuration.

`llmpipe.backends.axolotl.plugins` says why.
"""

FEW_ROWS = 5_000
"""Up to so many rows, starting processes to tokenise them costs more than it saves."""

SIMPO_GAMMA = 0.5
"""The default of ``simpo_gamma``, TRL's own. Axolotl hands over None, on which the step fails."""

REWARD_DEFAULTS: Mapping[str, Any] = {
    "model_type": "AutoModelForSequenceClassification",
    "num_labels": 1,
}
"""Further defaults for ``reward_model: true``."""

CPU_OFF = (
    "bf16",
    "fp16",
    "tf32",
    "flash_attention",
    "lora_mlp_kernel",
    "lora_qkv_kernel",
    "lora_o_kernel",
    "lora_embedding_kernel",
)
"""Written as false on a CPU, asked for or not: Axolotl switches some on by itself and then dies."""

CPU_DROPPED = (
    "bfloat16",
    "float16",
    "xformers_attention",
    "sage_attention",
    "flex_attention",
    "flash_attn_cross_entropy",
    "flash_attn_fuse_mlp",
    "flash_optimum",
    "deepspeed",
    "deepcompile",
    "fsdp",
    "fsdp_config",
    "fsdp_version",
    "fsdp_final_state_dict_type",
    "fp8",
    "fp8_config",
    "fp8_enable_fsdp_float8_all_gather",
)
"""Left out on a CPU when asked for."""

CPU_ATTENTION = ("eager", "sdpa")
"""The attention implementations that a CPU has."""

GPU_PLUGINS: Mapping[str, str] = {
    "axolotl.integrations.liger": "liger_",
    "axolotl.integrations.cut_cross_entropy": "cut_cross_entropy",
}
"""Plugins that need a GPU, by module, and what their keys begin with."""


@dataclass(frozen=True, slots=True)
class BlockProblem:
    """One thing said of a block before it runs: where in it, what, and what to do.

    A ``warning`` is told and does not stop a run.
    """

    path: KeyPath
    message: str
    hint: str | None = None
    warning: bool = False
    field: str = "axolotl"
    """The stage's field that the path is in: ``axolotl``, or ``dataset`` for the rows' entry."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """A Parquet file of training rows and how Axolotl is to read them (``type`` and the like)."""

    path: str
    layout: Mapping[str, Any]
    rows: int = 0

    def entry(self) -> dict[str, Any]:
        """Give the entry of Axolotl's ``datasets`` list."""
        layout = copy.deepcopy(dict(self.layout))  # shared parts would become YAML anchors
        return {"path": self.path, "ds_type": "parquet", "split": "train", **layout}


@dataclass(frozen=True, slots=True)
class Sources:
    """What llmpipe puts into the configuration: paths as the training process will see them."""

    base_model: str
    train: DataFile
    output_dir: str
    prepared: str
    test: DataFile | None = None
    adapter: str | None = None
    """An adapter to go on from."""
    allow_untrained: Sequence[str] = ()
    """What the labels plugin lets pass: ``end_of_turn``, ``rows``."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A configuration in the order in which it is written, and what the user should be told."""

    config: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def compile_config(block: Mapping[str, Any], sources: Sources, device: Device) -> Compiled:
    """Give the configuration that Axolotl is to run.

    ``block`` is the merged vocabulary of the person's file and the stage (`merge_blocks`).

    Raises:
        StageError: the block asks for something that would train wrongly on this device.
    """
    settings = with_defaults(block, new_adapter=sources.adapter is None)
    if sources.test and not _asks_for_evaluation(settings):
        settings["eval_strategy"] = "epoch"
    if sources.adapter:
        settings["lora_model_dir"] = sources.adapter
    if sources.train.rows <= FEW_ROWS and "dataset_processes" not in settings:
        settings.setdefault("dataset_num_proc", 1)
    settings, notes = fit_device(settings, device)
    settings["plugins"] = [*OWN_PLUGINS, *(settings.get("plugins") or [])]
    if sources.allow_untrained:
        settings["allow_untrained"] = list(sources.allow_untrained)
    if settings.get("trust_remote_code"):
        notes.append("trust_remote_code: true runs Python code that came with the base model")
    return Compiled(
        {
            "base_model": sources.base_model,
            "datasets": [sources.train.entry()],
            **({"test_datasets": [sources.test.entry()]} if sources.test else {}),
            "val_set_size": 0,
            "dataset_prepared_path": sources.prepared,
            "output_dir": sources.output_dir,
            **settings,
        },
        notes,
    )


def fit_device(settings: Mapping[str, Any], device: Device) -> tuple[dict[str, Any], list[str]]:
    """Return the settings as this device can run them, and what was switched off or left out.

    Raises:
        StageError: they ask for something that would train wrongly on this device.
    """
    fitted = dict(settings)
    if device.kind == "cpu":
        message = packing_problem(settings, device)
        if message:
            raise StageError(message, hint="set sample_packing: false")
        return fitted, _fit_cpu(fitted)
    if not any(key in fitted for key in ("bf16", "bfloat16", "fp16", "float16")):
        fitted["bf16" if device.dtype == "bfloat16" else "fp16"] = True
    return fitted, []


def merge_blocks(
    file_block: Mapping[str, Any], block: Mapping[str, Any], *, label: str
) -> tuple[dict[str, Any], list[str]]:
    """Lay the stage's block over a person's Axolotl file; give it and what was left out of it.

    A key of the block replaces the file's whole value; what a mapping of the file loses by one of
    the block is said. Keys that llmpipe owns are left out of the file (a block that holds one is
    refused before: `owned_problems`).
    """
    dropped = [key for key in OWNED if key in file_block and key not in block]
    kept = {key: value for key, value in file_block.items() if key not in OWNED}
    notes = [f"{label}: {key} is replaced by the stage's own ({OWNED[key]})" for key in dropped]
    for key, chosen in block.items():
        if isinstance(chosen, Mapping) and isinstance(kept.get(key), Mapping):
            lost = ", ".join(str(name) for name in kept[key] if name not in chosen)
            if lost:
                notes.append(f"{label}: {key} loses {lost}: the stage's {key} replaces all of it")
    return {**kept, **block}, notes


def with_defaults(block: Mapping[str, Any], *, new_adapter: bool = True) -> dict[str, Any]:
    """Give the block's keys over llmpipe's defaults; a null in the block unsets a default."""
    defaults = dict(DEFAULTS)
    if block.get("adapter") in ("lora", "qlora"):
        if new_adapter:
            defaults |= LORA_DEFAULTS
        if any(block.get(key) for key in ("lora_target_modules", "lora_target_parameters")):
            defaults.pop("lora_target_linear", None)
    else:
        defaults["learning_rate"] = FULL_LEARNING_RATE
    if block.get("adapter") == "qlora":
        defaults["load_in_4bit"] = True
    if block.get("reward_model"):
        defaults |= REWARD_DEFAULTS
    if block.get("rl") == "simpo":
        defaults["simpo_gamma"] = SIMPO_GAMMA
    if block.get("max_steps"):
        defaults.pop("num_epochs")
    if not any(block.get(key) for key in ("save_strategy", "save_steps", "saves_per_epoch")):
        defaults["save_strategy"] = "epoch"
    defaults["save_total_limit"] = 2  # the last may be torn by a crash, the one before is not
    merged = {**defaults, **block}
    return {key: value for key, value in merged.items() if value is not None}


def owned_problems(block: Mapping[str, Any]) -> list[BlockProblem]:
    """List the keys of a block that llmpipe owns, each with what to write instead."""
    return [
        BlockProblem((key,), f"{key} is set by llmpipe", OWNED[key])
        for key in block
        if key in OWNED
    ]


def packing_problem(block: Mapping[str, Any], device: Device) -> str | None:
    """Say why sample packing cannot be had on this device, or None.

    Without an attention kernel that knows where a packed sample ends, samples see each other: the
    run looks healthy and trains on the wrong thing.
    """
    wanted = [key for key in ("sample_packing", "eval_sample_packing") if block.get(key)]
    if device.kind != "cpu" or not wanted:
        return None
    return (
        f"{wanted[0]}: true needs flash attention, which a CPU does not have: "
        "packed samples would see each other"
    )


def to_yaml(config: Mapping[str, Any], *, header: str) -> str:
    """Write a configuration as YAML that Axolotl reads, ``header`` as comments at its top."""
    import yaml

    body: str = yaml.safe_dump(
        dict(config), sort_keys=False, allow_unicode=False, default_flow_style=False, width=100
    )
    return "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines()) + body


def _asks_for_evaluation(settings: Mapping[str, Any]) -> bool:
    return any(settings.get(key) for key in ("eval_strategy", "eval_steps", "evals_per_epoch"))


def _fit_cpu(settings: dict[str, Any]) -> list[str]:
    """Switch off in place what a CPU cannot do; give a sentence for each wish not granted.

    ``auto`` is none: it asks for what the machine can do.
    """
    notes = [
        f"{key}: {settings[key]} is switched off: this machine has no GPU"
        for key in CPU_OFF
        if settings.get(key) not in (None, False, "auto")
    ]
    settings.update(dict.fromkeys(CPU_OFF, False))
    for key in CPU_DROPPED:
        if settings.pop(key, None):
            notes.append(f"{key} is left out: this machine has no GPU")
    attention = settings.get("attn_implementation")
    if attention and attention not in CPU_ATTENTION:
        settings["attn_implementation"] = "sdpa"
        notes.append(f"attn_implementation: {attention} becomes sdpa: this machine has no GPU")
    notes += _drop_gpu_plugins(settings)
    settings.setdefault("gradient_checkpointing", False)
    return notes


def _drop_gpu_plugins(settings: dict[str, Any]) -> list[str]:
    notes: list[str] = []
    if not isinstance(settings.get("plugins"), list):  # that it is no list is said elsewhere
        return notes
    for plugin in list(settings["plugins"]):
        module = next((m for m in GPU_PLUGINS if str(plugin).startswith(m)), None)
        if module is None:
            continue
        settings["plugins"] = [kept for kept in settings["plugins"] if kept != plugin]
        for key in [k for k in settings if k.startswith(GPU_PLUGINS[module])]:
            del settings[key]
        notes.append(f"plugins: {plugin} is left out with its keys: this machine has no GPU")
    if settings.get("plugins") == []:
        del settings["plugins"]
    return notes
