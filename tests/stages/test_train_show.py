"""Rows that are shown before a training, as the installed Axolotl tokenizes them."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmpipe.contracts import Artifact, StageContext
from llmpipe.errors import StageError
from llmpipe.stages import train_show
from llmpipe.stages.train import Train
from llmpipe.stages.train_config import TrainConfig

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("warm_axolotl")]


def shown(
    folder: Path, base: Path, rows: list[dict[str, Any]], block: dict[str, Any], count: int
) -> tuple[list[str], list[str]]:
    """The texts of a stage's first rows, and what was said of them."""
    folder.mkdir()
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    notes: list[str] = []
    data = {"kind": "train", "base_model": "b", "data": "d", "axolotl": block}
    ctx = StageContext(
        config=msgspec.convert(data, TrainConfig),
        stage="sft",
        inputs={
            "base_model": Artifact(base, "model", "1", "./base"),
            "data": Artifact(file, "dataset", "2", "./rows.jsonl"),
        },
        out=folder,
        work=folder,
        journal=folder,
        tools=folder,
        spec_dir=folder,
        threads=1,
        emit=lambda event: notes.append(event["message"]),
    )
    return Train.show_rows(ctx, count), notes


def test_rows_are_shown_as_they_train(tmp_path: Path, tiny_llama: Path) -> None:
    """The first ones, in the file's order; a turn of weight 0 stays outside the marks."""
    chat = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Wrong.", "weight": 0},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "Right."},
    ]
    rows = [
        {"messages": [*chat[:2], {**chat[2], "content": f"Row {n}?"}, chat[3]]} for n in range(9)
    ]
    rows[1] = {"messages": [{"role": "user", "content": "long " * 400}, chat[3]]}
    block = {"adapter": "lora", "sequence_len": 256, "sample_packing": True}
    texts, notes = shown(tmp_path / "sft", tiny_llama, rows, block, 3)
    assert len(texts) == 2
    assert "Row 0?" in texts[0]
    assert "Row 2?" in texts[1]
    for text in texts:
        assert text.endswith("assistant\n⟦Right.<|im_end|>⟧\n")
        assert "Wrong.<|im_end|>" in text
        assert text.count("⟦") == 1
    assert [note for note in notes if note.startswith("of the first 3 rows: Dropped 1")]


def test_a_preparation_that_does_not_end_is_stopped(
    tmp_path: Path, tiny_llama: Path, warm_axolotl: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Axolotl's import alone takes longer than this; none of its processes is left."""
    monkeypatch.setattr(sys, "executable", warm_axolotl)
    monkeypatch.setattr(train_show, "SECONDS", 0.5)
    rows = [{"messages": [{"role": r, "content": "x"} for r in ("user", "assistant")]}]
    with pytest.raises(StageError, match=r"did not prepare the rows within 0\.5 s"):
        shown(tmp_path / "sft", tiny_llama, rows, {"adapter": "lora"}, 1)
    environments = [path.read_bytes() for path in _readable(Path("/proc").glob("[0-9]*/cmdline"))]
    assert not [text for text in environments if str(tmp_path).encode() in text]


def _readable(paths: Iterable[Path]) -> Iterator[Path]:
    """The files of processes that are still there, and ours to read."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.read_bytes()
            yield path


def test_both_answers_of_a_pair_are_shown(tmp_path: Path, tiny_llama: Path) -> None:
    """Each after its prompt."""
    rows = [{"prompt": "Even?", "chosen": "Yes.", "rejected": "No."}]
    texts, _ = shown(tmp_path / "dpo", tiny_llama, rows, {"rl": "dpo", "adapter": "lora"}, 1)
    chosen, rejected = texts
    assert chosen.startswith("chosen: <|im_start|>")
    assert chosen.endswith("Even?<|im_end|>\n<|im_start|>assistant\n⟦Yes.<|im_end|>⟧")
    assert rejected.endswith("⟦No.<|im_end|>⟧")


def test_pairs_of_a_reward_model_are_shown(tmp_path: Path, tiny_llama: Path) -> None:
    """Both answers, each with its prompt; more rows may be asked for than there are."""
    turns = [{"role": "user", "content": "Even?"}]
    rows = [{"prompt": turns, "chosen": "Yes.", "rejected": "No."}]
    texts, _ = shown(tmp_path / "judge", tiny_llama, rows, {"reward_model": True}, 10**20)
    assert [text.partition(":")[0] for text in texts] == ["chosen", "rejected"]
    assert "Even?" in texts[0]
    assert "Yes." in texts[0]
