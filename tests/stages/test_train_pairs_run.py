"""Real trainings by preference methods, and what their trainers were given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmpipe.contracts import Artifact, StageContext, StageResult
from llmpipe.stages.format import Format, FormatConfig
from llmpipe.stages.train import Train
from llmpipe.stages.train_config import TrainConfig

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("warm_axolotl")]

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


def labeled(number: int) -> dict[str, Any]:
    """A row of KTO as TRL's data sets have it, its label as a word."""
    return {
        "system": "You are a helpful AI assistant.",
        "prompt": f"Is {number} even?",
        "completion": "A" if number % 2 else "no \n",
        "label": "true" if number % 2 else "false",
    }


def formatted(folder: Path, rows: list[dict[str, Any]], to: str) -> Artifact:
    """The training rows that a ``format`` stage makes."""
    source, out = folder / "raw.jsonl", folder / "formatted"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out.mkdir()
    config = msgspec.convert({"kind": "format", "data": "d", "to": to}, FormatConfig)
    inputs = {"data": Artifact(source, "records", "", "raw.jsonl")}
    ctx = StageContext(config, "rows", inputs, out, folder, folder, folder, folder, threads=1)
    return Artifact(Format.run(ctx).outputs["train"], "dataset", "2", "rows")


def train(
    folder: Path,
    base: Path,
    data: Artifact,
    block: Mapping[str, Any],
    inputs: Mapping[str, Artifact] | None = None,
    **fields: Any,
) -> tuple[StageResult, list[str]]:
    """Run a ``train`` stage; return its result and its warnings."""
    events: list[Mapping[str, Any]] = []
    for name in ("out", "work"):
        (folder / name).mkdir()
    config = {"kind": "train", "base_model": "b", "data": "d", "axolotl": {**BLOCK, **block}}
    ctx = StageContext(
        config=msgspec.convert({**config, **fields}, TrainConfig),
        stage="align",
        inputs={
            "base_model": Artifact(base, "model", "1", "./base"),
            "data": data,
            **(inputs or {}),
        },
        out=folder / "out",
        work=folder / "work",
        journal=folder,
        tools=folder,
        spec_dir=folder,
        threads=2,
        emit=events.append,
    )
    result = Train.run(ctx)
    return result, [event["message"] for event in events if event["event"] == "warning"]


@pytest.mark.parametrize(
    "block",
    [
        {"rl": "dpo", "adapter": "lora"},
        {"rl": "simpo"},
        {"rl": "orpo", "adapter": "lora"},
        {"reward_model": True, "adapter": "lora"},
    ],
    ids=["dpo", "simpo", "orpo", "reward"],
)
def test_pairs_train(tmp_path: Path, tiny_llama: Path, block: dict[str, Any]) -> None:
    """To the end, with what the rows have; what they have too much is said."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(ultrafeedback(n)) + "\n" for n in range(6)))
    data = Artifact(rows, "dataset", "2", "./rows.jsonl")
    result, warnings = train(tmp_path, tiny_llama, data, block)
    assert result.metrics["steps"] == 2
    assert "./rows.jsonl: training does not read the columns score_chosen (6 rows)" in warnings
    for row in handed_over(tmp_path / "work" / "prepared") if "rl" in block else ():
        assert "You are a helpful AI assistant." in row["prompt"]
        assert row["prompt"].endswith("even?<|im_end|>\n<|im_start|>assistant\n")
        assert (row["chosen"], row["rejected"]) == ("A<|im_end|>", "no \n<|im_end|>")


@pytest.mark.parametrize("adapter", ["lora", None])
def test_labeled_answers_train(tmp_path: Path, tiny_llama: Path, adapter: str | None) -> None:
    """KTO, with an adapter and with all weights: from rows through ``format``."""
    data = formatted(tmp_path, [labeled(n) for n in range(6)], "labeled")
    result, _ = train(tmp_path, tiny_llama, data, {"rl": "kto", "adapter": adapter})
    assert result.metrics["steps"] == 2
    assert result.metrics["rows"] == 6
    assert 0 < result.metrics["trained_tokens"] < result.metrics["tokens"]
    for row in handed_over(tmp_path / "work" / "prepared"):
        assert "You are a helpful AI assistant." in row["prompt"]
        assert row["prompt"].endswith("even?<|im_end|>\n<|im_start|>assistant\n")
        assert (row["completion"], row["label"]) in [
            ("A<|im_end|>", True),
            ("no \n<|im_end|>", False),
        ]


REWARDS = """
def right(completions, answer, since, parts, **kwargs):
    assert set(answer) <= {1.5, "none"} and set(since) <= {"2024-01-05", None}
    assert all(part in ({"x": [1]}, {"y": None}) for part in parts), parts
    return [float(len(chat[0]["content"]) % 7) for chat in completions]
"""


def test_prompts_train_by_rewards(tmp_path: Path, tiny_llama: Path) -> None:
    """GRPO with a function and with a reward model that a stage trained.

    The function gets the columns of the rows as they were written, whatever their types are.
    """
    folders = [tmp_path / "judge", tmp_path / "grpo"]
    for folder in folders:
        folder.mkdir()
    pairs = formatted(folders[0], [ultrafeedback(n) for n in range(4)], "preference")
    block = {"reward_model": True, "max_steps": 1}
    judge = train(folders[0], tiny_llama, pairs, block)[0].outputs["model"]

    rows = [
        {"prompt": f"Is {n} even?", "answer": 1.5 if n % 2 else "none", "parts": {"x": [1]}}
        for n in range(4)
    ]
    rows[1] |= {"since": "2024-01-05", "parts": {"y": None}}
    data = formatted(folders[1], rows, "prompt")
    file = tmp_path / "my rewards.py"
    file.write_text(REWARDS)
    result, warnings = train(
        folders[1],
        tiny_llama,
        data,
        {
            "rl": "grpo",
            "micro_batch_size": 4,
            "trl": {"num_generations": 2, "max_completion_length": 8},
        },
        rewards=[{"file": "./my rewards.py", "function": "right"}, {"model": "j", "weight": 0.5}],
        inputs={
            "rewards.0.file": Artifact(file, "file", "3", "./my rewards.py"),
            "rewards.1.model": Artifact(judge, "model", "4", "judge"),
        },
    )
    assert result.metrics["steps"] == 2
    assert result.metrics["rows"] == 4
    assert [step for step, _ in result.metrics["reward"]] == [1, 2]
    log = json.loads((folders[1] / "work" / "output" / "training_end.json").read_text())["log"]
    assert {"rewards/right/mean", "rewards/model.2/mean"} <= log[0].keys()
    assert not [text for text in warnings if "not checked" in text]


def handed_over(prepared: Path) -> list[dict[str, Any]]:
    """The texts that Axolotl gave its trainer."""
    import datasets

    (folder,) = (path for path in prepared.iterdir() if path.is_dir())
    rows = list(datasets.load_from_disk(str(folder)))
    assert len(rows) == 6
    return rows
