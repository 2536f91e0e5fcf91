"""What a training left behind is compared with the checkpoint that it says it kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmpipe.errors import StageError
from llmpipe.stages.train_product import verify_kept

pytestmark = pytest.mark.heavy

NAME = "adapter_model.safetensors"


def weights(folder: Path, value: float, name: str = NAME) -> Path:
    """Write one tensor into a folder."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    save_file({"a.lora_B": torch.full((2, 2), value)}, folder / name)
    return folder


def test_the_same_weights_pass(tmp_path: Path) -> None:
    """Nothing is said of weights that are those of the checkpoint."""
    assert verify_kept(weights(tmp_path / "out", 1.0), weights(tmp_path / "best", 1.0)) is None


def test_other_weights_and_a_lost_checkpoint_are_errors(tmp_path: Path) -> None:
    """The trainer only logs that it did not find the best checkpoint, and keeps the last weights."""
    out = weights(tmp_path / "out", 1.0)
    with pytest.raises(StageError, match="did not keep the best weights"):
        verify_kept(out, weights(tmp_path / "best", 2.0))
    with pytest.raises(StageError, match=r"kept the weights of checkpoint-2, which is gone"):
        verify_kept(out, tmp_path / "checkpoint-2")


@pytest.mark.parametrize(
    ("name", "why"), [("model.safetensors", "did not write"), (None, "has no")]
)
def test_what_cannot_be_compared_is_said(tmp_path: Path, name: str | None, why: str) -> None:
    """Files of other names, or none (DeepSpeed keeps its weights in shards)."""
    best = weights(tmp_path / "best", 1.0, name) if name else tmp_path / "best"
    best.mkdir(exist_ok=True)
    assert why in (verify_kept(weights(tmp_path / "out", 1.0), best) or "")
