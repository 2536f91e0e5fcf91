"""Keys that do nothing beside another one, or not what one expects."""

from __future__ import annotations

from typing import Any

import pytest

from llmpipe.stages.train_idle import _OF_ADAPTERS, _OF_PACKING, idle_keys


def told(block: dict[str, Any], *, evaluates: bool = False) -> dict[str, str]:
    """The keys that are warned of, and why."""
    found = list(idle_keys(block, evaluates=evaluates))
    assert all(problem.warning for problem in found)
    return {str(problem.path[0]): problem.message for problem in found}


@pytest.mark.parametrize(
    ("block", "key", "why"),
    [
        ({"adapter": None, "lora_r": 8}, "lora_r", "without `adapter`"),
        ({"peft_use_dora": True}, "peft_use_dora", "without `adapter`"),
        ({"sample_packing_bin_size": 200}, "sample_packing_bin_size", "without `sample_packing`"),
        ({"gradient_checkpointing_kwargs": {"use_reentrant": True}},
         "gradient_checkpointing_kwargs", "without `gradient_checkpointing`"),
        ({"adapter": "lora", "bnb_config_kwargs": {"blocksize": 32}},
         "bnb_config_kwargs", "without `load_in_4bit`"),
        ({"lr_scheduler": "linear", "cosine_min_lr_ratio": 0.1},
         "cosine_min_lr_ratio", "only with cosine"),
        ({"cosine_constant_lr_ratio": 0.8}, "cosine_constant_lr_ratio", "`cosine_min_lr_ratio`"),
        ({"num_epochs": 3, "max_steps": 10}, "num_epochs", "`max_steps` alone decides"),
    ],
)  # fmt: skip
def test_a_key_without_effect_is_told(block: dict[str, Any], key: str, why: str) -> None:
    """With the key that it would need, or that wins."""
    assert why in told(block)[key]
    assert list(told(block)) == [key]


@pytest.mark.parametrize(
    "block",
    [
        {"adapter": "lora", **dict.fromkeys(_OF_ADAPTERS, 1)},
        {"sample_packing": True, **dict.fromkeys(_OF_PACKING, 1)},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
        {"adapter": "qlora", "bnb_config_kwargs": {"blocksize": 32}},
        {"cosine_min_lr_ratio": 0.1, "cosine_constant_lr_ratio": 0.8},
        {"lr_scheduler": "rex", "cosine_min_lr_ratio": 0.1},
        {"num_epochs": 3},
        {"lora_r": None, "lora_on_cpu": True, "loraplus_lr_ratio": 16},
        {"eval_strategy": "no"},
    ],
)
def test_a_key_with_effect_is_not(block: dict[str, Any]) -> None:
    """Nor one that is empty, nor one of whose effect we cannot be sure."""
    assert told(block) == {}


@pytest.mark.parametrize("no", ["no", False])
def test_no_evaluation_is_one_before_the_first_step(no: Any) -> None:
    """Axolotl switches eval_on_start on for every strategy that is named."""
    assert (
        "once, before the first step"
        in told({"eval_strategy": no}, evaluates=True)["eval_strategy"]
    )


@pytest.mark.heavy
def test_the_rules_are_those_of_the_installed_axolotl() -> None:
    """Its source still reads the keys where the rules say, so that an upgrade is noticed."""
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec("axolotl")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("without Axolotl")
    root = Path(spec.submodule_search_locations[0])
    base = (root / "core/builders/base.py").read_text("utf-8")
    assert '["max_steps"] = self.cfg.max_steps or total_num_steps or -1' in base
    chosen = base.index("elif self.cfg.eval_strategy:")
    assert '["eval_on_start"] = True' in base[chosen : chosen + 200]
    adapter = (root / "loaders/adapter.py").read_text("utf-8")
    assert all(f"cfg.{key}" in adapter for key in _OF_ADAPTERS)
    scheduler = (root / "core/trainers/mixins/scheduler.py").read_text("utf-8")
    assert (
        'lr_scheduler_type == "cosine"\n            and self.args.cosine_min_lr_ratio' in scheduler
    )
