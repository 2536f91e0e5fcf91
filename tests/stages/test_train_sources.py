"""Several sources, repeated, sampled and split by group: from `format` to what each method trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmpipe.contracts import Artifact, StageContext
from llmpipe.formats.records import read_rows
from llmpipe.stages.format import Format, FormatConfig
from llmpipe.stages.train_data import prepare

ANSWER = {"role": "assistant", "content": "a"}
METHODS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "dpo": ("preference", {"chosen": "a", "rejected": "b"}, {"rl": "dpo"}),
    "orpo": ("preference", {"chosen": "a", "rejected": "b"}, {"rl": "orpo"}),
    "reward model": ("preference", {"chosen": "a", "rejected": "b"}, {"reward_model": True}),
    "kto": ("labeled", {"completion": "a", "label": True}, {"rl": "kto"}),
    "grpo": ("prompt", {"level": 3}, {"rl": "grpo"}),
    "sft": ("messages", {"completion": "a"}, {}),
}


@pytest.mark.parametrize("method", METHODS)
def test_sources_reach_every_method(tmp_path: Path, method: str) -> None:
    """Repeated rows train twice, sampled ones once, and no group is on two sides."""
    to, columns, block = METHODS[method]
    for name, count in (("one", 12), ("two", 30)):
        rows = [
            {"prompt": f"{name} {n}?", **columns, "topic": f"{name}{n // 3}"} for n in range(count)
        ]
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = msgspec.convert(
        {
            "kind": "format",
            "to": to,
            "sources": [{"data": "one", "repeat": 2}, {"data": "two", "sample": 9}],
            "split": {"eval": 3, "test": 3, "group": "topic"},
        },
        FormatConfig,
    )
    inputs = {
        port: Artifact(tmp_path / f"{given.value}.jsonl", "records", "", f"{given.value}.jsonl")
        for port, given in Format.ports(config).inputs.items()
    }
    out = tmp_path / "out"
    out.mkdir()
    ctx = StageContext(config, "rows", inputs, out, *[tmp_path] * 4, threads=1)
    result = Format.run(ctx)
    prompts: dict[str, list[str]] = {}
    for part, path in result.outputs.items():
        if part not in ("train", "eval", "test"):
            continue
        data = Artifact(path, "dataset", "", part)
        target = tmp_path / f"{part}.parquet"
        prepared = prepare(data, target, block, str(target))
        assert prepared.file.rows == len(list(read_rows(path, part)))
        prompts[part] = [json.dumps(row) for _, row in read_rows(path, part)]
    kept = result.metrics["kept"]
    assert {part: len({*rows}) for part, rows in prompts.items()} == kept  # repeats aside
    assert kept["eval"] >= 3
    assert kept["test"] >= 3
    assert not {*prompts["train"]} & {*prompts["eval"], *prompts["test"]}
    assert len(prompts["train"]) > len({*prompts["train"]})
