"""Real trainings on pairs of answers, and what their trainers were given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmpipe.contracts import Artifact, StageContext, StageResult
from llmpipe.stages.train import Train
from llmpipe.stages.train_config import TrainConfig

pytestmark = pytest.mark.heavy

BLOCK = {"max_steps": 2, "micro_batch_size": 2, "sequence_len": 128, "learning_rate": 0.01}


def ultrafeedback(number: int) -> dict[str, Any]:
    """A row as UltraFeedback has it: ``messages`` is the chosen conversation."""
    asked = {"role": "user", "content": f"Is {number} even?"}
    chosen, rejected = ([asked, {"role": "assistant", "content": text}] for text in ("A", "no \n"))
    return {
        "prompt": asked["content"],
        "chosen": chosen,
        "rejected": rejected,
        "messages": chosen,
        "score_chosen": 8.5,
        "system": "You are a helpful AI assistant.",
    }


@pytest.mark.parametrize(
    "block",
    [{"rl": "dpo", "adapter": "lora"}, {"rl": "simpo"}, {"reward_model": True, "adapter": "lora"}],
    ids=["dpo", "simpo", "reward"],
)
def test_pairs_train(tmp_path: Path, tiny_llama: Path, block: dict[str, Any]) -> None:
    """To the end, with what the rows have; what they have too much is said."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(ultrafeedback(n)) + "\n" for n in range(6)))
    events: list[Mapping[str, Any]] = []
    for name in ("out", "work"):
        (tmp_path / name).mkdir()
    data = {"kind": "train", "base_model": "b", "data": "d", "axolotl": {**BLOCK, **block}}
    ctx = StageContext(
        config=msgspec.convert(data, TrainConfig),
        stage="align",
        inputs={
            "base_model": Artifact(tiny_llama, "model", "1", "./base"),
            "data": Artifact(rows, "dataset", "2", "./rows.jsonl"),
        },
        out=tmp_path / "out",
        work=tmp_path / "work",
        journal=tmp_path,
        tools=tmp_path,
        spec_dir=tmp_path,
        threads=2,
        emit=events.append,
    )
    result: StageResult = Train.run(ctx)
    assert result.metrics["steps"] == 2
    warnings = [event["message"] for event in events if event["event"] == "warning"]
    assert "./rows.jsonl: training does not read the columns score_chosen (6 rows)" in warnings
    for row in handed_over(tmp_path / "work" / "prepared") if "rl" in block else ():
        assert "You are a helpful AI assistant." in row["prompt"]
        assert row["prompt"].endswith("even?<|im_end|>\n<|im_start|>assistant\n")
        assert (row["chosen"], row["rejected"]) == ("A<|im_end|>", "no \n<|im_end|>")


def handed_over(prepared: Path) -> list[dict[str, Any]]:
    """The texts that Axolotl gave its trainer."""
    import datasets

    (folder,) = (path for path in prepared.iterdir() if path.is_dir())
    rows = list(datasets.load_from_disk(str(folder)))
    assert len(rows) == 6
    return rows
