"""The packages that keys of an Axolotl block ask for, besides Axolotl itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ASKED_FOR: Mapping[str, str] = {
    "deepspeed": "deepspeed",
    "load_in_4bit": "bitsandbytes",
    "load_in_8bit": "bitsandbytes",
    "use_comet": "comet-ml",
    "use_mlflow": "mlflow",
    "use_ray": "ray",
    "use_wandb": "wandb",
    "wandb_project": "wandb",
}
"""Packages by the keys that ask for them when they are set."""

ROUNDING = frozenset({"load_in_4bit", "load_in_8bit"})
"""The keys that round the base, which a merge of the adapter does again."""


def packages_of(block: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the packages that a block asks for."""
    return tuple(dict.fromkeys(name for key, name in ASKED_FOR.items() if block.get(key)))


def rounding_packages(block: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the packages that merging an adapter takes which a block has trained."""
    return packages_of({key: value for key, value in block.items() if key in ROUNDING})
