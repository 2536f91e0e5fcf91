"""The packages that keys of an Axolotl block need besides Axolotl itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ASKED_FOR: Mapping[str, str] = {
    "deepspeed": "deepspeed",
    "load_in_4bit": "bitsandbytes",
    "load_in_8bit": "bitsandbytes",
    "use_comet": "comet-ml",
    "use_mlflow": "mlflow",
    "mlflow_experiment_name": "mlflow",
    "use_ray": "ray",
    "use_tensorboard": "tensorboard",
    "use_wandb": "wandb",
    "wandb_project": "wandb",
}
"""The package that each key needs if it is set."""

ROUNDING = frozenset({"load_in_4bit", "load_in_8bit"})
"""The keys that round the base, which a merge of the adapter repeats."""


def packages_of(block: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the packages that a block needs."""
    return tuple(dict.fromkeys(name for key, name in ASKED_FOR.items() if block.get(key)))


def rounding_packages(block: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the packages that merging an adapter of this block needs."""
    return packages_of({key: value for key, value in block.items() if key in ROUNDING})
