"""Watching Axolotl: its lines, its checkpoints, its failures. No training here."""

from __future__ import annotations

import ast
import json
import math
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from llmpipe.backends.axolotl.checkpoints import has_all_bytes, last_checkpoint
from llmpipe.backends.axolotl.ending import END_FILE, Labels, read_ending, read_labels
from llmpipe.backends.axolotl.plugins.axolotl_labels import FILE
from llmpipe.backends.axolotl.plugins.axolotl_labels.report import Report
from llmpipe.backends.axolotl.training import (
    PLUGINS,
    Launch,
    Watcher,
    arguments,
    dropped_rows,
    environment,
    failure,
    write_plugins,
)
from llmpipe.backends.subprocess import ChildResult
from llmpipe.errors import StageError

LINES = """\
 50%|█████     | 4/8 [00:00<00:00, 136.88 examples/s]
[2026-11-24 04:05:29,413] [INFO] [axolotl.train] Starting trainer...
[INFO] [axolotl.utils.data.utils] Dropped 3 sequences outside valid range ([2, 64])
  0%|          | 0/4 [00:00<?, ?it/s]
{'eval_loss': '10.9', 'eval_runtime': '0.1', 'epoch': '0'}
 25%|██▌       | 1/4 [00:00<00:01,  4.90it/s]
   {'loss': '10.77', 'grad_norm': '0.6912', 'learning_rate': '0.01', 'epoch': '0.1'}
 25%|██▌       | 1/4 [00:00<00:01,  4.90it/s]
{'loss': 10.5, 'grad_norm': nan, 'learning_rate': 0.009, 'memory': 'much'}
100%|██████████| 4/4 [00:01<00:00,  3.16it/s]
{'train_runtime': '1.896', 'train_loss': '10.56'}
"""


def test_the_watcher_reads_the_lines_that_axolotl_prints() -> None:
    """Bars before training are other work; losses are counted, whatever form they are printed in."""
    seen: list[tuple[int, int | None, float]] = []
    watcher = Watcher(every=2, on_step=lambda *step: seen.append(step))
    for line in LINES.splitlines():
        watcher(line)
    assert watcher.loss == [(2, 10.77), (4, 10.5)]
    assert seen == [(2, 4, 10.77), (4, 4, 10.5)]
    assert (watcher.steps, watcher.total, watcher.finished) == (4, 4, True)
    assert watcher.dropped == ["Dropped 3 sequences outside valid range ([2, 64])"]


def test_rows_of_other_shards_and_repeated_ones_are_left_out() -> None:
    """Axolotl only logs them; where no row repeats another there is nothing to say."""
    lines = [
        "[INFO] Starting deduplication for train dataset. Original size: 16",
        "[INFO] Deduplication complete for train dataset. New size: 9",
        "[INFO] Starting deduplication for eval dataset. Original size: 4",
        "[INFO] Deduplication complete for eval dataset. New size: 4",
        "[INFO] Using index #0 of 4 shards",
        "[INFO] Using index #0 of 1 shards",
    ]
    watcher = Watcher()
    for line in lines:
        watcher(line)
    assert watcher.dropped == [
        "7 of the train rows, which repeat others (deduplication)",
        "Using index #0 of 4 shards",
    ]
    assert dropped_rows(lines) == watcher.dropped


def test_what_was_found_in_the_labels_is_the_reason_of_a_failure(tmp_path: Path) -> None:
    """It is read from the plugin's file; an incomplete file is not a report."""
    (tmp_path / FILE).write_text('{"rows": 3')
    assert read_labels(tmp_path) is None
    Report(rows=3, warnings=["w"], error="no end", hint="do this").write(tmp_path)
    labels = read_labels(tmp_path)
    assert labels == Labels(3, 0, 0, ["w"], "no end", "do this")
    child = ChildResult(1, ["Traceback", "UntrainedError: no end"])
    error = failure(child, Watcher(), labels)
    assert error.message == "training was stopped before its first step: no end"
    assert error.hint == "do this"


def test_plugins_lie_beside_the_configuration_and_need_nothing_of_llmpipe(tmp_path: Path) -> None:
    """The folder that `llmpipe compile` writes is run where llmpipe is not installed."""
    write_plugins(tmp_path)
    files = {str(p.relative_to(tmp_path / PLUGINS)): p for p in tmp_path.rglob("*.py")}
    assert {"axolotl_seed.py", "axolotl_labels/plugin.py", "axolotl_labels/rows.py"} <= set(files)
    for file in files.values():
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "llmpipe" for name in names)


def test_losses_are_numbered_from_where_a_run_went_on() -> None:
    """After step 4 with every second step logged, the next is 6; preference training logs step 1."""
    resumed, preference = Watcher(every=2, start=4), Watcher(every=5, first=True)
    for watcher in (resumed, preference):
        for line in ("Starting trainer...", "{'loss': '1'}", "{'loss': '1'}"):
            watcher(line)
    assert [step for step, _ in resumed.loss] == [6, 8]
    assert [step for step, _ in preference.loss] == [1, 5]


@pytest.mark.parametrize("line", ["{'loss': 'nan'}", "{'loss': '0', 'grad_norm': nan}"])
def test_a_loss_that_is_no_number_stops_the_run(line: str) -> None:
    """The trainer prints 0 beside a NaN gradient; both mean that training broke down."""
    watcher = Watcher()
    watcher("Starting trainer...")
    with pytest.raises(StageError, match="diverged at step 1") as caught:
        watcher(line)
    assert "learning_rate" in (caught.value.hint or "")


def test_how_a_training_ended_is_read_from_the_trainers_record(tmp_path: Path) -> None:
    """Curves by name, also a loss that is not a number; the step kept is that of what was loaded."""
    record = {
        "step": 8,
        "planned": 40,
        "log": [{"step": 2, "loss": 1.25, "grad_norm": math.nan}, {"step": 2, "eval_loss": 0.5}],
        "stopped_early": True,
        "best_step": 4,
        "best_metric": "loss",
        "best_value": 0.5,
        "loaded": "checkpoint-4",
    }
    (tmp_path / END_FILE).write_text(json.dumps(record))
    ended = read_ending(tmp_path)
    assert (ended.curve("loss"), ended.curve("eval_loss")) == ([(2, 1.25)], [(2, 0.5)])
    assert ended.kept_step == 4
    (tmp_path / END_FILE).write_text(json.dumps({**record, "loaded": None}))
    assert read_ending(tmp_path).kept_step == 8
    for text in ("", "{", "{}"):
        (tmp_path / END_FILE).write_text(text)
        with pytest.raises(StageError, match="left no record of its end"):
            read_ending(tmp_path)


def test_a_python_path_of_the_users_keeps_the_plugins(tmp_path: Path) -> None:
    """Without the plugins' folder no compiled configuration could be trained."""
    env = environment(Launch(env={"PYTHONPATH": "/mine"}), threads=1, work=tmp_path, offline=True)
    assert env["PYTHONPATH"] == f"{tmp_path}/plugins:/mine"


@pytest.mark.parametrize(
    ("code", "tail", "message", "hint"),
    [
        (1, ["torch.OutOfMemoryError: CUDA out of memory."], "OutOfMemoryError", "micro_batch"),
        (-9, ["…"], "was killed", "micro_batch_size: 1"),
        (1, ["pydantic.ValidationError: 1 validation error for X"], "Validation", "llmpipe check"),
        (0, ["bye"], "without finishing", ""),
        (1, ["ModuleNotFoundError: No module named 'ray'"], "'ray'", "not installed"),
        (1, ["ValueError: a:3: the chat template cannot write this row: no"], "a:3", "that can"),
        (
            1,
            ["ValueError: a:3: with the chosen answer the chat template renders another prompt: …"],
            "a:3",
            "enable_thinking: false",
        ),
    ],
)
def test_a_failure_says_what_to_try(code: int, tail: list[str], message: str, hint: str) -> None:
    """The reason, the last lines and advice; an exit status of 0 alone is not success."""
    error = failure(ChildResult(code, tail), Watcher())
    assert message in error.message
    assert tail[-1] in error.message
    assert hint in (error.hint or "")


def test_arguments_and_environment(tmp_path: Path) -> None:
    """Launcher arguments stand after --; telemetry is off; the user's variables win."""
    launch = Launch("torchrun", ["--nproc_per_node=8"], {"OMP_NUM_THREADS": "1"})
    assert arguments("a.yml", launch, resume=Path("c")) == [
        *["train", "a.yml", "--launcher", "torchrun"],
        *["--resume-from-checkpoint", "c", "--", "--nproc_per_node=8"],
    ]
    env = environment(launch, threads=4, work=tmp_path, offline=True)
    assert env["AXOLOTL_DO_NOT_TRACK"] == env["DO_NOT_TRACK"] == env["HF_HUB_OFFLINE"] == "1"
    assert env["OMP_NUM_THREADS"] == "1"
    assert "HF_HUB_OFFLINE" not in environment(launch, threads=4, work=tmp_path, offline=False)


def checkpoint(folder: Path, step: int) -> Path:
    """Write a checkpoint as whole as a trainer's, with one small tensor."""
    place = folder / f"checkpoint-{step}"
    place.mkdir(parents=True)
    header = json.dumps({"t": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    data = struct.pack("<Q", len(header)) + header + struct.pack("<f", math.pi)
    (place / "adapter_model.safetensors").write_bytes(data)
    for name in ("optimizer.pt", "scheduler.pt"):
        (place / name).write_bytes(b"x")
    state = {"global_step": step, "log_history": []}
    (place / "trainer_state.json").write_text(json.dumps(state))
    return place


def test_the_last_whole_checkpoint_is_taken_and_torn_ones_go(tmp_path: Path) -> None:
    """Ten is later than nine; a checkpoint without state, or with half a tensor, is not used."""
    whole = checkpoint(tmp_path, 9)
    (checkpoint(tmp_path, 10) / "trainer_state.json").write_text('{"global_')
    torn = checkpoint(tmp_path, 11) / "adapter_model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    (checkpoint(tmp_path, 12) / "optimizer.pt").write_bytes(b"")
    assert last_checkpoint(tmp_path) == whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-9"]
    assert last_checkpoint(tmp_path / "none") is None


@pytest.mark.parametrize(
    "end",
    [
        {"max_steps": 10},
        {
            "max_steps": 40,
            "stateful_callbacks": {"TrainerControl": {"args": {"should_training_stop": True}}},
        },
    ],
    ids=["last step", "stopped early"],
)
def test_a_checkpoint_at_the_end_is_no_start(tmp_path: Path, end: dict[str, Any]) -> None:
    """The one before is; the end stays where it is, and alone it is none."""
    before = checkpoint(tmp_path, 9)
    state = checkpoint(tmp_path, 10) / "trainer_state.json"
    state.write_text(json.dumps({"global_step": 10, **end}))
    assert last_checkpoint(tmp_path) == before
    shutil.rmtree(before)
    assert last_checkpoint(tmp_path) is None
    assert state.is_file()


@pytest.mark.parametrize("content", [b"", b"\xff" * 12, struct.pack("<Q", 4) + b"{{{{"])
def test_a_file_that_is_no_safetensors_file_is_not_whole(tmp_path: Path, content: bytes) -> None:
    """Garbage in place of a header is told, not believed."""
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    assert not has_all_bytes(file)
