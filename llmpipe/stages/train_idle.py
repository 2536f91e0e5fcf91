"""Find keys of an Axolotl block that the installed libraries ignore beside another one.

Each rule was read in axolotl 0.19.0; its comment names the place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llmpipe.backends.axolotl.config import BlockProblem

_OF_ADAPTERS = (
    "lora_alpha", "lora_alpha_pattern", "lora_dropout", "lora_fan_in_fan_out",
    "lora_modules_to_save", "lora_r", "lora_rank_pattern", "lora_target_linear",
    "lora_target_modules", "lora_target_parameters", "peft_autocast_adapter_dtype",
    "peft_ensure_weight_tying", "peft_init_lora_weights", "peft_layer_replication",
    "peft_layers_pattern", "peft_layers_to_transform", "peft_trainable_token_indices",
    "peft_use_dora", "peft_use_rslora",
)  # fmt: skip
_OF_PACKING = (
    "sample_packing_bin_size", "sample_packing_eff_est", "sample_packing_group_size",
    "sample_packing_sequentially",
)  # fmt: skip

_RULES: tuple[tuple[tuple[str, ...], Callable[[Mapping[str, Any]], bool], str], ...] = (
    (  # loaders/adapter.py reads them, for an adapter only
        _OF_ADAPTERS,
        lambda block: not block.get("adapter"),
        "has no effect without `adapter`: all weights are trained",
    ),
    (  # core/trainers/base.py packs only if asked to
        _OF_PACKING,
        lambda block: not (block.get("sample_packing") or block.get("eval_sample_packing")),
        "has no effect without `sample_packing`",
    ),
    (  # core/builders/base.py, _configure_gradient_checkpointing
        ("gradient_checkpointing_kwargs",),
        lambda block: (
            not any(
                block.get(key)
                for key in ("gradient_checkpointing", "activation_offloading", "layer_offloading")
            )
        ),
        "has no effect without `gradient_checkpointing`",
    ),
    (  # loaders/model.py, _set_quantization_config: for 4 bits only
        ("bnb_config_kwargs",),
        lambda block: not block.get("load_in_4bit") and block.get("adapter") != "qlora",
        "has no effect without `load_in_4bit`",
    ),
    (  # core/trainers/mixins/scheduler.py
        ("cosine_min_lr_ratio", "cosine_constant_lr_ratio", "lr_quadratic_warmup"),
        lambda block: block.get("lr_scheduler") not in (None, "cosine", "rex"),
        "has no effect with this `lr_scheduler`, only with cosine",
    ),
    (
        ("cosine_constant_lr_ratio",),
        lambda block: block.get("cosine_min_lr_ratio") is None,
        "has no effect without `cosine_min_lr_ratio`",
    ),
)


def idle_keys(block: Mapping[str, Any], *, evaluates: bool) -> Iterator[BlockProblem]:
    """Yield a warning for each key that does nothing, or not what one expects.

    Args:
        block: Axolotl's keys, as the user wrote them.
        evaluates: Whether there are rows to evaluate on.
    """
    told: set[str] = set()
    for keys, idle, why in _RULES:
        for key in keys:
            if block.get(key) not in (None, False) and key not in told and idle(block):
                told.add(key)
                yield BlockProblem((key,), why, "remove it", warning=True)
    if block.get("max_steps") and block.get("num_epochs"):  # core/builders/base.py: max_steps wins
        yield BlockProblem(
            ("num_epochs",),
            "does not limit the training: `max_steps` alone decides how long it is",
            "remove one of them",
            warning=True,
        )
    if evaluates and block.get("eval_strategy") in ("no", False):
        # core/builders/base.py sets eval_on_start for every strategy that is named
        yield BlockProblem(
            ("eval_strategy",),
            "Axolotl still evaluates once, before the first step",
            "remove eval_data to evaluate never",
            warning=True,
        )
