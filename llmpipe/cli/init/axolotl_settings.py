"""Carry over the settings of an Axolotl file: the fields and the block of a train stage.

Each key either goes into the block as it is, becomes a field of the stage, is left out with a note
because the training stays the same without it, or is a problem. llmpipe's defaults that differ from
Axolotl's are switched off by null, so that the block trains as the file does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl.config import (
    DEFAULTS,
    GRPO,
    LORA_DEFAULTS,
    METHODS,
    OWNED,
    REWARD_DEFAULTS,
    KeyPath,
)
from llmpipe.backends.axolotl.paths import (
    FILES,
    MODELS,
    TEMPLATES,
    holds_no_path,
    is_path,
    replace_paths,
)
from llmpipe.backends.axolotl.sharding import ZERO
from llmpipe.canonical import leaves
from llmpipe.cli.init.axolotl_rows import Places, Rows, Told
from llmpipe.graph.sources import HUB_ID
from llmpipe.stages.train_datasets import found_in

UNSUPPORTED: Mapping[str, tuple[str, str]] = {
    "pretraining_dataset": (
        "llmpipe prepares all rows before training, and streams none",
        "write the rows under datasets with type: completion",
    ),
    "streaming": ("llmpipe prepares all rows before training, and streams none", "remove it"),
    "processor_type": ("llmpipe trains on text only, not on images or sound", "train a text model"),
    "process_reward_model": ("llmpipe trains no process reward models", "train with Axolotl"),
}
"""Keys that llmpipe cannot train with: why, and what to do."""

LEFT_OUT: Mapping[str, str] = {
    "save_safetensors": "llmpipe reads safetensors only",
    "dataset_prepared_path": OWNED["dataset_prepared_path"],
    "output_dir": OWNED["output_dir"],
    "auto_resume_from_checkpoints": "llmpipe resumes a training from its own checkpoints",
}
"""Keys without which the training is the same, and why."""

SAME = frozenset({"logging_steps", "seed"})
"""Defaults of llmpipe that do not shape the training, but for the order of its rows, which is
random without a seed."""

_SECRET = re.compile(r"(^|_)(api_key|token|password|secret)$")
_SCIENTIFIC = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
_ZERO = re.compile(r"(zero[123])(.*offload.*)?", re.IGNORECASE)
_SHARDED = ("deepspeed", "fsdp", "fsdp_config")


def carry_settings(
    file: Mapping[str, Any], rows: Rows, places: Places, told: Told
) -> dict[str, Any]:
    """Return the train stage that trains as the file says."""
    block = {str(key): _number(value) for key, value in file.items() if value is not None}
    _refuse(block, told)
    stage: dict[str, Any] = {"kind": "train", "base_model": _base_model(block, places, told)}
    stage["data"] = rows.data
    if rows.eval_data:
        stage["eval_data"] = rows.eval_data
    block = _without_owned(block, told)
    if rewards := _rewards(block, places, told):
        stage["rewards"] = rewards
    if checkpoint := _checkpoint(block, places, told):
        stage["continue_from"] = checkpoint
    if rows.dataset:
        stage["dataset"] = rows.dataset
    if any(block.get(key) for key in _SHARDED):
        stage["launch"] = {"launcher": "accelerate"}
        told.note(
            (next(filter(block.get, _SHARDED)),),
            "is launched by accelerate, as `axolotl train` does; see launch for other launchers",
        )
    else:
        told.note(
            (),
            "one process trains; `axolotl train` starts one for each GPU, as launch: "
            "{launcher: accelerate} does",
        )
    if modules := _own_modules(block, rows, places):
        stage.setdefault("launch", {})["env"] = {"PYTHONPATH": str(modules)}
        told.note((), f"modules are found in {modules}: launch.env.PYTHONPATH names it")
    block = _with_paths({**block, **rows.block}, places, told)
    if block.get("rl") == GRPO and not (block.get("trl") or {}).get("max_completion_length"):
        told.note(
            ("trl",),
            "llmpipe sets max_completion_length: 256; without it, answers end after 20 tokens",
        )
    if block.get("seed") is None:
        told.note(
            (), "seed: 42 is set: without a seed, Axolotl shuffles the rows differently in each run"
        )
    asked = ("eval_strategy", "eval_steps", "evals_per_epoch")
    if rows.eval_data and not any(map(block.get, asked)):
        told.note((), "the rows held out are evaluated once an epoch; Axolotl would never do so")
    stage["axolotl"] = {**block, **_unset(block)}
    return stage


def _refuse(block: dict[str, Any], told: Told) -> None:
    for key, (why, what) in UNSUPPORTED.items():
        if block.get(key):
            told.lose((key,), why, what)
    rl = block.get("rl")
    if rl and rl not in METHODS:
        told.lose(("rl",), f"{rl} is not supported; supported are {', '.join(METHODS)}")


def _base_model(block: dict[str, Any], places: Places, told: Told) -> str:
    """Return the stage's ``base_model``; take what belongs to it out of the block."""
    name, revision = block.pop("base_model", None), block.pop("revision_of_model", None)
    if not isinstance(name, str) or not name:
        told.lose(("base_model",) if name else (), "the file names no base_model")
        return ""
    here = found_in(name, places.folders)
    if here is not None:
        if revision:
            told.note(("revision_of_model",), "is left out: the base model is a folder")
        return places.written(here)
    model = f"{name}@{revision}" if revision else name
    if is_path(name):
        told.lose(("base_model",), f"no such folder: {name}")
    elif not HUB_ID.fullmatch(model):
        message = f"{name} is not a folder, and not written as org/name"
        told.lose(("base_model",), message, "write its full id, such as openai-community/gpt2")
    return model


def _checkpoint(block: dict[str, Any], places: Places, told: Told) -> str | None:
    """Take the checkpoint to go on from out of the block; return it as the spec writes it."""
    named = block.pop("resume_from_checkpoint", None)
    if not named:
        return None
    here = found_in(str(named), places.folders)
    if here is None:
        told.lose(("resume_from_checkpoint",), f"no such folder: {named}")
        return None
    return places.written(here)


def _without_owned(block: Mapping[str, Any], told: Told) -> dict[str, Any]:
    """Return the keys that stay in the block; note those that are left out."""
    kept: dict[str, Any] = {}
    for key, value in block.items():
        if key in ("datasets", "test_datasets", "val_set_size") or key in UNSUPPORTED:
            continue  # carried over or refused elsewhere
        if key in LEFT_OUT and not (key == "save_safetensors" and value):
            told.note((key,), f"is left out: {LEFT_OUT[key]}")
        elif _SECRET.search(key) and isinstance(value, str):
            variable = key.upper()
            told.note((key,), f"is left out, as a secret: set {variable} in the environment")
        else:
            kept[key] = value
    return kept


def _rewards(block: dict[str, Any], places: Places, told: Told) -> list[dict[str, Any]]:
    """Return the stage's ``rewards``; take their names out of the block's ``trl``."""
    trl = block.get("trl")
    if not isinstance(trl, Mapping) or not trl.get("reward_funcs"):
        return []
    named, weights = trl["reward_funcs"], trl.get("reward_weights")
    named = named if isinstance(named, list) else [named]
    weights = weights if isinstance(weights, list) else [None] * len(named)
    if len(weights) != len(named):
        message = f"holds {len(weights)} weights for {len(named)} functions"
        told.lose(("trl", "reward_weights"), message, "write one weight for each function")
    block["trl"] = {
        key: value for key, value in trl.items() if key not in ("reward_funcs", "reward_weights")
    }
    rewards: list[dict[str, Any]] = []
    for i, (name, weight) in enumerate(zip(named, weights, strict=False)):
        module, _, function = str(name).rpartition(".")
        file = found_in(f"{module.replace('.', '/')}.py", places.folders) if module else None
        folder = found_in(str(name), places.folders)
        if file is not None:
            reward = {"file": places.written(file), "function": function}
        elif folder is not None or HUB_ID.fullmatch(str(name)):
            reward = {"model": places.written(folder) if folder else str(name)}
        else:
            tried = " and ".join(dict.fromkeys(str(f.absolute()) for f in places.folders))
            message = f"{name}: no file {module.replace('.', '/') or name}.py in {tried}"
            told.lose(
                ("trl", "reward_funcs", i), message, "a reward function is an input by its file"
            )
            continue
        rewards.append({**reward, **({"weight": float(weight)} if weight is not None else {})})
    return rewards


def _own_modules(block: Mapping[str, Any], rows: Rows, places: Places) -> Path | None:
    """Return the folder with the user's own modules: plugins, and types of rows."""
    names = [*(block.get("plugins") or []), rows.dataset.get("type")]
    for name in (name for name in names if isinstance(name, str) and "." in name):
        top = name.partition(".")[0]
        if top == "axolotl":
            continue
        found = found_in(f"{top}.py", places.folders) or found_in(top, places.folders)
        if found is not None:
            return found.parent.absolute()
    return None


def _with_paths(block: dict[str, Any], places: Places, told: Told) -> dict[str, Any]:
    """Return the block with its paths as the spec writes them."""
    written: dict[KeyPath, str] = {}
    for where, value in leaves(block):
        key = next((step for step in reversed(where) if isinstance(step, str)), "")
        if not isinstance(value, str) or holds_no_path(where):
            continue
        takes_path = key in FILES | TEMPLATES | MODELS or is_path(value)
        here = found_in(value, places.folders) if takes_path else None
        if here is not None:
            written[where] = places.written(here)
        elif key == "deepspeed" and (known := _ZERO.search(Path(value).stem)):
            name = known[1].lower() + ("-offload" if known[2] and known[1] != "zero1" else "")
            if value != name:
                message = f"{value} does not exist here: llmpipe's own {name} is used"
                told.note((key,), message)
            written[where] = name if name in ZERO else known[1].lower()
        elif key in FILES or is_path(value):
            told.lose(where, f"no such file or folder: {value}")
    return replace_paths(block, written)


def _unset(block: Mapping[str, Any]) -> dict[str, None]:
    """Return null for each of llmpipe's defaults that the file does not set."""
    ours = {*DEFAULTS, "save_total_limit"} - SAME
    if block.get("adapter") in ("lora", "qlora"):
        ours |= {*LORA_DEFAULTS, "load_in_4bit"}
    if block.get("reward_model"):
        ours |= {*REWARD_DEFAULTS}
    if block.get("rl") == GRPO:
        ours -= {"micro_batch_size"}
    return dict.fromkeys(key for key in sorted(ours) if key not in block)


def _number(value: Any) -> Any:
    """Return a number that YAML 1.1, which Axolotl reads, takes for a text: 1e-4."""
    return float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value
