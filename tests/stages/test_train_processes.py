"""How many GPUs a training's launcher uses, for its estimate."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from llmpipe.contracts import Hardware
from llmpipe.stages.train_config import TrainConfig
from llmpipe.stages.train_estimate import _unused, _used


@pytest.mark.parametrize(
    ("launch", "gpus"),
    [
        ({}, 1),
        ({"launcher": "torchrun"}, 1),
        ({"launcher": "torchrun", "args": ["--nproc_per_node=2"]}, 2),
        ({"launcher": "torchrun", "args": ["--nproc-per-node", "4"]}, 4),
        ({"launcher": "torchrun", "args": ["--nproc_per_node=gpu"]}, 8),
        ({"launcher": "accelerate"}, 8),
        ({"launcher": "accelerate", "args": ["--num_processes", "2"]}, 2),
    ],
)
def test_each_process_has_a_gpu(launch: dict[str, Any], gpus: int) -> None:
    """As many as the launcher starts, whatever the machine has."""
    data = {"kind": "train", "base_model": "b", "data": "d", "launch": launch}
    hardware = Hardware("cuda", 80 * 10**9, 8)
    assert _used(msgspec.convert(data, TrainConfig), hardware).gpus == gpus


def test_gpus_that_stay_idle_are_told() -> None:
    """With the launcher that uses them; a machine without GPUs has none to spare."""
    assert not [*_unused(0, 0), *_unused(4, 4), *_unused(8, 4)]
    (note,) = _unused(1, 4)
    assert note.startswith("the stage's launcher uses 1 of 4 GPUs; launch: {launcher: torchrun")
