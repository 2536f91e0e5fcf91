"""Recognize a YAML file by its top-level keys: a spec, or an Axolotl configuration.

A file of the wrong kind then gets one clear error instead of one error for each unknown key.
"""

from __future__ import annotations

from collections.abc import Collection

_SPEC = frozenset({"version", "extends", "params", "profiles", "stages"})
_AXOLOTL = frozenset(
    {
        "adapter",
        "base_model",
        "datasets",
        "gradient_accumulation_steps",
        "learning_rate",
        "lora_r",
        "micro_batch_size",
        "model_type",
        "num_epochs",
        "output_dir",
        "pretraining_dataset",
        "rl",
        "sequence_len",
        "test_datasets",
    }
)


def is_spec(keys: Collection[str]) -> bool:
    """Return whether a file with these keys is a spec."""
    return "stages" in keys or (bool(_SPEC.intersection(keys)) and _AXOLOTL.isdisjoint(keys))


def is_axolotl(keys: Collection[str]) -> bool:
    """Return whether a file with these keys is an Axolotl configuration."""
    return _SPEC.isdisjoint(keys) and not _AXOLOTL.isdisjoint(keys)
