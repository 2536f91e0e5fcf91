"""DeepSpeed's ZeRO and FSDP2 by short name, as ``deepspeed: zero2`` or ``fsdp_config: fsdp2``.

Axolotl takes a DeepSpeed configuration from a file, and its wheel contains none. Here is one for
each stage of ZeRO. Transformers fills in the values "auto" from the training's own settings.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = "deepspeed"
"""The folder beside a configuration with the file of its short name."""

_AUTO = "auto"


def _zero(stage: int, *, offload: bool = False) -> dict[str, Any]:
    """Return a DeepSpeed configuration.

    Args:
        stage: What is sharded: 1 optimizer states, 2 also gradients, 3 also weights.
        offload: Whether optimizer states (with stage 3 also weights) lie in main memory.
    """
    cpu = {"device": "cpu", "pin_memory": True}
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": True, "contiguous_gradients": True}
    if offload:
        zero["offload_optimizer"] = cpu
    if stage == 3:
        zero |= {
            **({"offload_param": cpu} if offload else {}),
            "reduce_bucket_size": _AUTO,
            "stage3_prefetch_bucket_size": _AUTO,
            "stage3_param_persistence_threshold": _AUTO,
            "stage3_gather_16bit_weights_on_model_save": True,  # else no weights are saved
        }
    return {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # Axolotl's optimizer stays the one that is named
        "bf16": {"enabled": _AUTO},
        "fp16": {"enabled": _AUTO},
        "gradient_clipping": _AUTO,
        "gradient_accumulation_steps": _AUTO,
        "train_batch_size": _AUTO,
        "train_micro_batch_size_per_gpu": _AUTO,
    }


ZERO: Mapping[str, Mapping[str, Any]] = {
    "zero1": _zero(1),
    "zero2": _zero(2),
    "zero2-offload": _zero(2, offload=True),
    "zero3": _zero(3),
    "zero3-offload": _zero(3, offload=True),
}
"""The configurations that ``deepspeed`` takes by name."""

_FSDP2 = {
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "reshard_after_forward": True,
    "cpu_ram_efficient_loading": True,
    "state_dict_type": "FULL_STATE_DICT",  # one whole model is saved, which later stages read
    "offload_params": False,
}

FSDP: Mapping[str, Mapping[str, Any]] = {
    "fsdp2": _FSDP2,
    "fsdp2-offload": {**_FSDP2, "offload_params": True},
}
"""The configurations that ``fsdp_config`` takes by name."""


def spelled_out(
    block: Mapping[str, Any], folder: Path | None, shown: str = FOLDER
) -> dict[str, Any]:
    """Return a block with short names replaced by what Axolotl reads.

    Args:
        block: Axolotl's vocabulary.
        folder: Where the file of a DeepSpeed configuration is written; None writes none.
        shown: What the configuration calls that folder.
    """
    spelled = dict(block)
    name = block.get("deepspeed")
    if isinstance(name, str) and name in ZERO:
        file = f"{name}.json"  # Axolotl looks for "zero3" in the name
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(json.dumps(ZERO[name], indent=2) + "\n", "utf-8")
        spelled["deepspeed"] = f"{shown}/{file}"
    name = block.get("fsdp_config")
    if isinstance(name, str) and name in FSDP:
        spelled |= {"fsdp_version": 2, "fsdp_config": dict(FSDP[name])}
    return spelled


def known_fault(block: Mapping[str, Any]) -> str | None:
    """Return what is known to fail with the installed DeepSpeed, or None."""
    if block.get("deepspeed") not in ("zero1", "zero2", "zero2-offload"):
        return None
    try:
        version = importlib.metadata.version("deepspeed")
    except importlib.metadata.PackageNotFoundError:
        return None
    if tuple(map(int, version.split(".")[:2])) >= (0, 19):
        return None
    return f"DeepSpeed {version} fails for ZeRO 1 and 2 on torch 2.13 with several processes"
