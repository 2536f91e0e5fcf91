"""Going on from the checkpoint of another train stage."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from training_job import LORA, Job, contents

from llmpipe.contracts import Artifact
from llmpipe.errors import StageError
from llmpipe.stages.train import Train
from llmpipe.stages.train_checkpoint import continued, given_checkpoint, of_others
from llmpipe.stages.train_config import TrainConfig

STEADY = {**LORA, "lr_scheduler": "constant", "learning_rate": 0.002}


def config(axolotl: dict[str, Any], **fields: Any) -> TrainConfig:
    """A train stage."""
    data = {"kind": "train", "base_model": "b", "data": "d", "axolotl": axolotl}
    return msgspec.convert({**data, **fields}, TrainConfig)


def going_on(root: Path, base: Path, checkpoint: Path, block: dict[str, Any]) -> Job:
    """A stage that continues from a checkpoint."""
    job = Job(root, base, block, continue_from="sft.checkpoint")
    given = Artifact(checkpoint, "file", "9", "sft.checkpoint")
    job.ctx = dataclasses.replace(job.ctx, inputs={**job.ctx.inputs, "checkpoint": given})
    return job


@pytest.mark.heavy
@pytest.mark.usefixtures("warm_axolotl")
@pytest.mark.timeout(1800)  # three trainings, each with an import of Axolotl
def test_going_on_equals_one_longer_training(tmp_path: Path, tiny_llama: Path) -> None:
    """Byte for byte with a constant rate: weights, optimizer, order of rows, random state."""
    whole = Job(tmp_path / "whole", tiny_llama, {**STEADY, "max_steps": 6}).run()
    first = Job(tmp_path / "first", tiny_llama, STEADY, keep_checkpoint=True).run()
    checkpoint = first.outputs["checkpoint"]
    assert not list(checkpoint.glob("training_args*"))
    assert str(tmp_path).encode() not in b"".join(contents(checkpoint).values())
    second = going_on(tmp_path / "second", tiny_llama, checkpoint, {**STEADY, "max_steps": 6})
    result = second.run()
    assert contents(result.outputs["adapter"]) == contents(whole.outputs["adapter"])
    assert contents(result.outputs["adapter"]) != contents(first.outputs["adapter"])
    assert result.metrics["steps"] == 6
    assert result.metrics["loss"] == whole.metrics["loss"]
    assert "going on from step 4 with its optimizer and schedule" in second.warnings()
    assert "not those of" not in second.warnings()
    with pytest.raises(StageError, match="is at step 4, and the settings plan 4: nothing is left"):
        going_on(tmp_path / "none", tiny_llama, checkpoint, STEADY).run()


def test_other_rows_and_another_base_are_told(tmp_path: Path) -> None:
    """The trainer would pass over the first of the rows, and load an adapter on any base that fits."""
    job = Job(tmp_path, tmp_path / "base", LORA, continue_from="sft.checkpoint")
    told = tmp_path / "llmpipe.json"
    told.write_text('{"data": "2", "base_model": "1"}')  # the digests that the job has
    assert of_others(job.ctx, tmp_path) == []
    told.write_text('{"data": "8", "base_model": "9"}')
    rows, base = of_others(job.ctx, tmp_path)
    assert "skips as many batches of them as the checkpoint has steps" in rows
    assert base == "the base model is not the one of the checkpoint's training"
    told.unlink()
    assert of_others(job.ctx, tmp_path) == []  # a checkpoint of somewhere else


def test_a_schedule_that_had_ended_is_told(tmp_path: Path) -> None:
    """The first step that goes on from it has the rate 0, as one measures."""
    rates = [{"step": n, "learning_rate": rate} for n, rate in enumerate((1e-3, 5e-4, 0.0), 1)]
    state = {"global_step": 3, "max_steps": 3, "log_history": rates}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    assert "learning rate near 0" in continued(tmp_path, 3)
    (tmp_path / "trainer_state.json").write_text(json.dumps({**state, "max_steps": 9}))
    assert continued(tmp_path, 3) == "going on from step 3 with its optimizer and schedule"


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    """Such as the folder of an adapter, which holds weights alone."""
    folder = Artifact(tmp_path, "file", "", "./folder")
    with pytest.raises(StageError, match=r"\./folder is not a whole checkpoint"):
        given_checkpoint(folder, {})


def test_ports_and_keys() -> None:
    """A checkpoint is an output only on request; without one, keys stay as they were."""
    plain, kept = config(LORA), config(LORA, keep_checkpoint=True)
    assert list(Train.ports(plain).outputs) == ["adapter"]
    assert list(Train.ports(kept).outputs) == ["adapter", "checkpoint"]
    assert Train.ports(kept).default == "adapter"
    assert not {"continue_from", "keep_checkpoint"} & Train.fingerprint(plain).keys()
    assert Train.fingerprint(kept)["keep_checkpoint"] is True
    logged = {**LORA, "logging_steps": 5}
    assert Train.fingerprint(config(logged)) == Train.fingerprint(plain)
    state = Train.fingerprint(
        config(logged, keep_checkpoint=True)
    )  # it tells when losses were logged
    assert state != Train.fingerprint(kept)
    given = Train.ports(config(LORA, continue_from="sft.checkpoint")).inputs["checkpoint"]
    assert given.accepts == ("file",)
    assert "STAGE.checkpoint" in given.refuse["adapter"]


@pytest.mark.parametrize(
    ("fields", "block", "place"),
    [
        ({"continue_from": "a.checkpoint", "adapter_start": "continue"}, {}, "continue_from"),
        (
            {"continue_from": "a.checkpoint"},
            {"resume_from_checkpoint": "./c"},
            "axolotl.resume_from_checkpoint",
        ),
        (
            {"continue_from": "a.checkpoint"},
            {"auto_resume_from_checkpoints": True},
            "axolotl.auto_resume_from_checkpoints",
        ),
        ({"keep_checkpoint": True}, {"save_only_model": True}, "axolotl.save_only_model"),
        ({"keep_checkpoint": True}, {"save_strategy": "no"}, "axolotl.save_strategy"),
        (
            {"keep_checkpoint": True, "eval_data": "e"},
            {"early_stopping_patience": 2, "eval_steps": 2},
            "axolotl.early_stopping_patience",
        ),
    ],
)
def test_settings_without_a_last_checkpoint_are_refused(
    fields: dict[str, Any], block: dict[str, Any], place: str
) -> None:
    """At their place, before anything runs."""
    found = {
        ".".join(map(str, where))
        for where, _ in Train.problems(config({**LORA, **block}, **fields))
    }
    assert place in found
