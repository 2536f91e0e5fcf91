"""What merging refuses, and what a look into tensors finds. Real merges: test_train_run.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llmpipe.backends.huggingface.tensors import look, weight_files
from llmpipe.contracts import Artifact, StageContext
from llmpipe.errors import StageError
from llmpipe.stages.merge import Merge, verify_merge
from llmpipe.stages.train_product import verify_adapter, verify_model

pytestmark = pytest.mark.heavy

Tensors = dict[str, torch.Tensor]
LEARNED = {"x.lora_A.weight": torch.ones(2), "x.lora_B.weight": torch.ones(2)}


def adapter_folder(folder: Path, tensors: Tensors, task: str = "CAUSAL_LM") -> Path:
    """Write a PEFT folder of a few small tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"task_type": task}))
    return folder


def model_folder(folder: Path, tensors: Tensors) -> Path:
    """Write weights as a model folder has them."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    return folder


def context(tmp_path: Path, adapter: Artifact) -> StageContext[Merge.Config]:  # type: ignore[name-defined]
    """A merge of one adapter."""
    return StageContext(
        config=Merge.Config(kind="merge", adapter="sft"),
        stage="merge",
        inputs={"adapter": adapter},
        out=tmp_path / "out",
        work=tmp_path,
        journal=tmp_path,
        tools=tmp_path,
        spec_dir=tmp_path,
        threads=1,
    )


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "is empty"),
        ({"x.lora_B.weight": torch.ones(0)}, "is empty"),
        ({**LEARNED, "y.lora_B.weight": torch.tensor([float("nan")])}, "not finite"),
        ({**LEARNED, "x.lora_B.weight": torch.zeros(2)}, "learned nothing"),
    ],
)
def test_a_bad_adapter_is_refused(tmp_path: Path, tensors: Tensors, message: str) -> None:
    """Empty (as ZeRO-3 saves them), broken, or as it was drawn: each by its own message."""
    with pytest.raises(StageError, match=message):
        verify_adapter(adapter_folder(tmp_path, tensors))


def test_a_missing_or_torn_adapter_is_refused(tmp_path: Path) -> None:
    """No file, or one cut off half way."""
    with pytest.raises(StageError, match=r"did not write adapter_model\.safetensors"):
        verify_adapter(tmp_path)
    file = adapter_folder(tmp_path, LEARNED) / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(StageError, match=r"adapter_model\.safetensors cannot be read"):
        verify_adapter(tmp_path)


def test_a_model_must_differ_from_its_base_and_be_finite(tmp_path: Path) -> None:
    """Training or merging that moved nothing is a failure, whatever the process said."""
    base = model_folder(tmp_path / "base", {"w": torch.ones(2)})
    same = model_folder(tmp_path / "same", {"w": torch.ones(2)})
    moved = model_folder(tmp_path / "moved", {"w": torch.zeros(2), "new": torch.ones(1)})
    broken = model_folder(tmp_path / "broken", {"w": torch.tensor([1.0, float("inf")])})
    verify_model(moved, base)
    assert verify_merge(base, moved) == {"tensors": 2, "changed": 2}
    with pytest.raises(StageError, match="changed no weight"):
        verify_model(same, base)
    with pytest.raises(StageError, match="merging changed no weight"):
        verify_merge(base, same)
    for verify in (verify_model, lambda after, before: verify_merge(before, after)):
        with pytest.raises(StageError, match="not finite"):
            verify(broken, base)


def test_weights_are_found_by_the_index_and_never_as_pickles(tmp_path: Path) -> None:
    """A shard that the index names must be there; a .bin file is not a weight file."""
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(StageError, match="no weights as safetensors"):
        weight_files(tmp_path)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"a": torch.zeros(1)}, tmp_path / "model-1.safetensors")
    with pytest.raises(StageError, match=r"lacks the weight file model-2\.safetensors"):
        weight_files(tmp_path)
    save_file({"b": torch.ones(1)}, tmp_path / "model-2.safetensors")
    report = look(weight_files(tmp_path))
    assert (set(report.shapes), report.zero) == ({"a", "b"}, ["a"])


def test_an_adapter_without_its_base_or_for_another_task_is_refused(tmp_path: Path) -> None:
    """Before any model is loaded."""
    folder = adapter_folder(tmp_path / "a", LEARNED, task="SEQ_CLS")
    base = Artifact(model_folder(tmp_path / "b", {"w": torch.ones(1)}), "model", "1", "./b")
    with pytest.raises(StageError, match="which model it was trained on"):
        Merge.run(context(tmp_path, Artifact(folder, "adapter", "2", "sft")))
    with pytest.raises(StageError, match="only CAUSAL_LM"):
        Merge.run(context(tmp_path, Artifact(folder, "adapter", "2", "sft", base)))
