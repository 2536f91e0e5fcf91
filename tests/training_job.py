"""A train stage on the tiny model in a folder of its own, for tests that really train."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmpipe.contracts import Artifact, StageContext, StageResult
from llmpipe.stages.train import Train
from llmpipe.stages.train_config import TrainConfig

LORA = {
    "adapter": "lora",
    "lora_r": 4,
    "learning_rate": 0.01,
    "max_steps": 4,
    "save_steps": 2,
    "micro_batch_size": 2,
    "sequence_len": 64,
    "bf16": "auto",
}


class Job:
    """One train stage on the tiny model in a folder of its own, and what it told."""

    def __init__(self, root: Path, base: Path, axolotl: dict[str, Any], **fields: Any) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.result = StageResult({})
        for name in ("out", "work"):
            (root / name).mkdir(parents=True, exist_ok=True)
        rows = root / "rows.jsonl"
        rows.write_text("".join(json.dumps(row(number)) + "\n" for number in range(12)))
        data = {"kind": "train", "base_model": "b", "data": "d", "axolotl": axolotl}
        inputs = {
            "base_model": Artifact(base, "model", "1", "./base"),
            "data": Artifact(rows, "dataset", "2", "./rows.jsonl"),
        }
        if "eval_data" in fields:
            held_out = root / "eval.jsonl"
            held_out.write_text("".join(json.dumps(row(n, "town")) + "\n" for n in range(12, 16)))
            inputs["eval_data"] = Artifact(held_out, "dataset", "4", "./eval.jsonl")
        if file := fields.get("axolotl_file"):
            inputs["axolotl_file"] = Artifact(root / file, "file", "3", file)
        self.ctx = StageContext(
            config=msgspec.convert(data | fields, TrainConfig),
            stage="sft",
            inputs=inputs,
            out=root / "out",
            work=root / "work",
            journal=root,
            tools=root,
            spec_dir=root,
            threads=2,
            emit=self.events.append,
        )

    def run(self) -> StageResult:
        """Train."""
        self.result = Train.run(self.ctx)
        return self.result

    def warnings(self) -> str:
        """What the user was told."""
        return "\n".join(e["message"] for e in self.events if e["event"] == "warning")


def row(number: int, answer: str = "city") -> dict[str, Any]:
    """A chat row with a column whose shape differs from row to row, as provenance does."""
    return {
        "messages": [
            {"role": "user", "content": f"Ticket: {number} boxes"},
            {"role": "assistant", "content": f"{answer} {number}"},
        ],
        "provenance": {f"p{number}": number} if number % 2 else [number],
    }


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
