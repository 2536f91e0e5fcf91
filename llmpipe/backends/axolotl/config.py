"""Compile a stage's settings into one Axolotl configuration: a pure function and its YAML.

The precedence, weakest first: `DEFAULTS`, the user's own Axolotl file, the stage's ``axolotl:``
block, the keys that llmpipe owns (`OWNED`), and what this machine cannot do. This module does not
read files, import Axolotl or check its keys; `llmpipe.backends.axolotl.check` checks them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmpipe.backends.axolotl.attention import fit_attention
from llmpipe.backends.device import Device

KeyPath = tuple[str | int, ...]

OWNED: Mapping[str, str] = {
    "base_model": "write the stage's own field base_model",
    "datasets": "write the stage's own field data",
    "pretraining_dataset": "write the stage's own field data: rows of raw text have a column text",
    "test_datasets": "write the stage's own field eval_data",
    "val_set_size": "split the data in a format stage and write eval_data: STAGE.eval",
    "output_dir": "llmpipe keeps the result: llmpipe get SPEC STAGE PATH copies it out",
    "dataset_prepared_path": "llmpipe keeps the prepared data and never uses a stale one",
    "allow_untrained": "write the stage's own field allow_untrained",
}
"""The Axolotl keys that llmpipe sets itself, and what to write instead."""

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
"""The defaults for keys that neither the block nor the file sets."""

LORA_DEFAULTS: Mapping[str, Any] = {
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "lora_target_linear": True,
}
"""More defaults for a new adapter with ``adapter: lora`` or ``adapter: qlora``."""

PREFERENCE = ("dpo", "ipo", "simpo", "orpo")
"""The values of ``rl`` that train on pairs of a chosen and a rejected answer."""

KTO = "kto"
"""The value of ``rl`` that trains on single answers, each labeled good or bad."""

GRPO = "grpo"
"""The value of ``rl`` that trains on prompts, whose answers rewards mark."""

METHODS = (*PREFERENCE, KTO, GRPO)
"""All supported values of ``rl``."""

EXPERIMENTAL = ("simpo", "orpo")
"""The values of ``rl`` whose trainers are in ``trl.experimental``, which any release may drop."""

FULL_LEARNING_RATE = 2e-5
"""The default learning rate if all weights are trained."""

OWN_PLUGINS = (
    "axolotl_seed.SeedPlugin",
    "axolotl_state.StatePlugin",
    "axolotl_labels.plugin.LabelsPlugin",
    "axolotl_startup.StartupPlugin",
    "axolotl_logits.LogitsPlugin",
)
"""The plugins that come before the user's own in every configuration.

`llmpipe.backends.axolotl.plugins` explains them.
"""

FEW_ROWS = 5_000
"""The number of rows up to which starting processes for tokenizing costs more than it saves."""

METHOD_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "simpo": {"simpo_gamma": 0.5},  # TRL's own; Axolotl would pass None, and the step would fail
    "kto": {"remove_unused_columns": False},  # Axolotl refuses KTO without it
    "grpo": {  # TRL's own; without a length Axolotl would pass None, which means 20 tokens
        "micro_batch_size": 8,
        "trl": {"num_generations": 8, "max_completion_length": 256},
    },
}
"""More defaults by ``rl``."""

REWARDS_PLUGIN = "axolotl_rewards.plugin.RewardsPlugin"
"""The plugin of trainings with rewards."""

REWARD_DEFAULTS: Mapping[str, Any] = {
    "model_type": "AutoModelForSequenceClassification",
    "num_labels": 1,
}
"""More defaults for ``reward_model: true``."""

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
"""Keys always set to false on a CPU: Axolotl switches some on by itself and then fails."""

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
"""Keys that are left out on a CPU."""

CPU_ATTENTION = ("eager", "sdpa")
"""The attention implementations that a CPU supports. Both isolate packed rows from each other; if
none is named, Axolotl keeps a mask with which they see each other."""

NAMED_ATTENTION = ("attn_implementation", "sdp_attention", "eager_attention")
"""Keys that name an attention implementation of a CPU; the last two are Axolotl's old names."""

PACKING = ("sample_packing", "eval_sample_packing")
"""Keys that pack several rows into one sequence."""

GPU_PLUGINS: Mapping[str, str] = {
    "axolotl.integrations.liger": "liger_",
    "axolotl.integrations.cut_cross_entropy": "cut_cross_entropy",
}
"""The plugins that need a GPU, by module, with the prefixes of their keys."""


@dataclass(frozen=True, slots=True)
class BlockProblem:
    """A problem in a block: where, what, and what to do. A ``warning`` does not stop a run."""

    path: KeyPath
    message: str
    hint: str | None = None
    warning: bool = False
    field: str = "axolotl"
    """The stage's field with the problem: ``axolotl``, or ``dataset`` for the rows' entry."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """A Parquet file of training rows and how Axolotl reads them (``type`` and similar keys)."""

    path: str
    layout: Mapping[str, Any]
    rows: int = 0

    def entry(self) -> dict[str, Any]:
        """Return the entry for Axolotl's ``datasets`` list."""
        layout = copy.deepcopy(dict(self.layout))  # shared parts would become YAML anchors
        return {"path": self.path, "ds_type": "parquet", "split": "train", **layout}


@dataclass(frozen=True, slots=True)
class Sources:
    """The values that llmpipe sets; paths are those of the training process."""

    base_model: str
    train: DataFile
    output_dir: str
    prepared: str
    test: DataFile | None = None
    adapter: str | None = None
    """An adapter to continue from."""
    allow_untrained: Sequence[str] = ()
    """What the labels plugin allows: ``end_of_turn``, ``rows``."""
    rewards: Mapping[str, Any] = field(default_factory=dict)
    """The keys of Axolotl's ``trl`` that name rewards."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A configuration in the order in which it is written, and notes for the user."""

    config: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def compile_config(block: Mapping[str, Any], sources: Sources, device: Device) -> Compiled:
    """Return the configuration for Axolotl.

    ``block`` is the merged block of the user's file and the stage (`merge_blocks`).
    """
    settings = with_defaults(block, new_adapter=sources.adapter is None)
    if sources.test and not _asks_for_evaluation(settings):
        settings["eval_strategy"] = "epoch"
    if sources.adapter:
        settings["lora_model_dir"] = sources.adapter
    if sources.train.rows <= FEW_ROWS and "dataset_processes" not in settings:
        settings.setdefault("dataset_num_proc", 1)
    settings, notes = fit_device(settings, device)
    own: tuple[str, ...] = OWN_PLUGINS
    if sources.rewards:
        settings["trl"] = {**_mapping(settings.get("trl")), **sources.rewards}
        own = (*own, REWARDS_PLUGIN)
    settings["plugins"] = [*own, *(settings.get("plugins") or [])]
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
    """Return the settings that this device supports, and notes about what was changed."""
    fitted = dict(settings)
    if device.kind == "cpu":
        return fitted, _fit_cpu(fitted)
    if not any(key in fitted for key in ("bf16", "bfloat16", "fp16", "float16")):
        fitted["bf16" if device.dtype == "bfloat16" else "fp16"] = True
    return fitted, fit_attention(fitted, here=device.memory > 0)


def merge_blocks(
    file_block: Mapping[str, Any], block: Mapping[str, Any], *, label: str
) -> tuple[dict[str, Any], list[str]]:
    """Return the stage's block merged over a user's Axolotl file, and notes about what was lost.

    A key of the block replaces the file's whole value; a note names what a mapping or list loses.
    Keys of the file that llmpipe owns are left out. (`owned_problems` refuses them in a block.)
    """
    dropped = [key for key in OWNED if key in file_block and key not in block]
    kept = {key: value for key, value in file_block.items() if key not in OWNED}
    notes = [f"{label}: {key} is replaced by the stage's own ({OWNED[key]})" for key in dropped]
    for key, chosen in block.items():
        both = (chosen, kept.get(key))
        if all(isinstance(each, Mapping) for each in both) or (
            all(isinstance(each, list) for each in both)
        ):
            lost = ", ".join(str(item) for item in kept[key] if item not in chosen)
            if lost:
                notes.append(f"{label}: {key} loses {lost}: the stage's {key} replaces all of it")
    return {**kept, **block}, notes


def with_defaults(block: Mapping[str, Any], *, new_adapter: bool = True) -> dict[str, Any]:
    """Return llmpipe's defaults overridden by the block; a null in the block removes a default."""
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
    defaults |= METHOD_DEFAULTS.get(str(block.get("rl")), {})
    if block.get("max_steps"):
        defaults.pop("num_epochs")
    if block.get("save_strategy") is not False and not any(
        block.get(key) for key in ("save_strategy", "save_steps", "saves_per_epoch")
    ):
        defaults["save_strategy"] = "epoch"
    defaults["save_total_limit"] = 2  # a crash can tear the last, but not the one before
    merged = {**defaults, **block}
    for key in ("eval_strategy", "save_strategy"):
        if merged.get(key) is False:  # how an Axolotl file's YAML reads a bare no
            merged[key] = "no"
    if defaults.get("trl") and isinstance(block.get("trl") or {}, Mapping):
        own = {key: value for key, value in _mapping(block.get("trl")).items() if value is not None}
        merged["trl"] = {**defaults["trl"], **own}  # its keys have defaults of their own
    return {key: value for key, value in merged.items() if value is not None}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def owned_problems(block: Mapping[str, Any]) -> list[BlockProblem]:
    """Return a problem for each key that llmpipe owns, with what to write instead."""
    return [
        BlockProblem((key,), f"{key} is set by llmpipe", OWNED[key])
        for key in block
        if key in OWNED
    ]


def to_yaml(config: Mapping[str, Any], *, header: str) -> str:
    """Return a configuration as YAML for Axolotl, with ``header`` as comments at the top."""
    import yaml

    body: str = yaml.safe_dump(
        dict(config), sort_keys=False, allow_unicode=False, default_flow_style=False, width=100
    )
    return "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines()) + body


def _asks_for_evaluation(settings: Mapping[str, Any]) -> bool:
    return any(settings.get(key) for key in ("eval_strategy", "eval_steps", "evals_per_epoch"))


def _fit_cpu(settings: dict[str, Any]) -> list[str]:
    """Switch off, in place, what a CPU does not support; return a note for each such setting.

    ``auto`` gets no note, because it means what the machine supports.
    """
    notes = [
        f"{key}: {_as_written(settings[key])} is switched off: this machine has no GPU"
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
    elif any(map(settings.get, PACKING)) and not any(map(settings.get, NAMED_ATTENTION)):
        settings["attn_implementation"] = "sdpa"
        packed = next(filter(settings.get, PACKING))
        notes.append(f"{packed}: attn_implementation: sdpa is added, which isolates packed rows")
    notes += _drop_gpu_plugins(settings)
    settings.setdefault("gradient_checkpointing", False)
    return notes


def _as_written(value: Any) -> Any:
    """Return a value as YAML spells it."""
    return str(value).lower() if isinstance(value, bool) else value


def _drop_gpu_plugins(settings: dict[str, Any]) -> list[str]:
    notes: list[str] = []
    if not isinstance(settings.get("plugins"), list):  # another type is reported elsewhere
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
