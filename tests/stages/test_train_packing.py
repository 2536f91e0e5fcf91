"""Packing on a CPU: rows that share a sequence must not see each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmpipe.contracts import Artifact, StageContext
from llmpipe.stages.train import Train
from llmpipe.stages.train_config import TrainConfig

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1800)]

ROWS = 6


def first_loss(folder: Path, base: Path, **block: Any) -> float:
    """The loss of one step over all rows, before anything is learned."""
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True)
    rows = folder / "rows.jsonl"
    chats = (
        [
            {"role": "user", "content": f"Count to {n}."},
            {"role": "assistant", "content": " ".join(map(str, range(1, n + 1)))},
        ]
        for n in range(2, 2 + ROWS)
    )
    rows.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    data = {"kind": "train", "base_model": "b", "data": "d"}
    settings = {"max_steps": 1, "sequence_len": 512, **block}
    events: list[Mapping[str, Any]] = []
    ctx = StageContext(
        config=msgspec.convert({**data, "axolotl": settings}, TrainConfig),
        stage="sft",
        inputs={
            "base_model": Artifact(base, "model", "1", "./base"),
            "data": Artifact(rows, "dataset", "2", "./rows.jsonl"),
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
    assert result.metrics["rows"] == ROWS
    (shown,) = (event["rows"] for event in events if event["event"] == "trained-rows")
    assert all("assistant\n⟦" in text and text.count("⟦") == 1 for text in shown)
    ((_, loss),) = result.metrics["loss"]
    return float(loss)


def test_packed_rows_do_not_see_each_other(
    tmp_path: Path, sharp_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows in one packed sequence have the loss that they have side by side in a batch.

    Without the attention that llmpipe names, Axolotl's mask lets them see each other.
    """
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    base = sharp_llama / "model"
    alone = first_loss(tmp_path / "alone", base, micro_batch_size=ROWS)
    packed = {"sample_packing": True, "micro_batch_size": 1}
    for name, more in (("sdpa", {}), ("eager", {"attn_implementation": "eager"})):
        found = first_loss(tmp_path / name, base, **packed, **more)
        assert found == pytest.approx(alone, abs=1e-5), name
