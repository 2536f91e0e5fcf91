"""Trackers of experiments, as they are: W&B offline, TensorBoard and MLflow in a real training."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmpipe.cli.main import main
from llmpipe.contracts import Finding
from llmpipe.errors import StageError
from llmpipe.needs import install_lines, with_mends
from llmpipe.stages.train import Train
from llmpipe.stages.train_config import TrainConfig
from llmpipe.stages.train_tracking import (
    keep_tracking,
    kept_trackers,
    require_no_credentials,
    tracking_environment,
    tracking_notes,
)

OFFLINE = {"wandb_project": "tickets", "wandb_mode": "offline", "use_tensorboard": True}
BLOCK = 32_768
SECRET = "sk-0123456789abcdef"
SPEC = """\
version: 1
name: tracked
stages:
  dataset: {kind: format, data: ./rows.jsonl, map: {user: q, assistant: a}, to: messages}
  sft:
    kind: train
    base_model: ./base
    data: dataset
    launch: {env: {MY_KEY: "${secret:MY_KEY}"}}
    axolotl: {adapter: lora, lora_r: 4, lora_alpha: 8, lora_target_linear: true, sequence_len: 64, micro_batch_size: 2, max_steps: 3, logging_steps: 1, learning_rate: 1e-2, wandb_project: tickets, wandb_mode: offline, use_tensorboard: true, mlflow_experiment_name: tickets, mlflow_run_name: first}
"""


@pytest.mark.heavy
def test_what_trackers_write_is_an_output_and_linked_from_the_report(
    tmp_path: Path, tiny_llama: Path
) -> None:
    """The folder of an offline run can be read back with its losses; no secret is in it."""
    (tmp_path / "base").symlink_to(tiny_llama)
    rows = [{"q": f"Ticket: {n} boxes", "a": f"city {n}"} for n in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "spec.yaml").write_text(SPEC)
    env = {**os.environ, "MY_KEY": SECRET, "WANDB_API_KEY": "", "HOME": str(tmp_path / "home")}
    result = subprocess.run(
        [sys.executable, "-m", "llmpipe", "run", "spec.yaml", "--json"],
        cwd=tmp_path, env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    stage = json.loads(result.stdout)["stages"]["sft"]
    folder = Path(stage["outputs"]["tracking"])
    (run,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    (events,) = (folder / "tensorboard").rglob("events.out.tfevents.*")
    losses = [loss for _, loss in stage["metrics"]["loss"]]
    assert logged_by_wandb(run) == pytest.approx(losses, rel=1e-3)
    assert logged_by_tensorboard(events) == pytest.approx(losses, rel=1e-3)
    assert logged_by_mlflow(folder / "mlflow") == pytest.approx(losses, rel=1e-3)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert not list((tmp_path / "home").rglob("*wandb*"))
    assert not list(tmp_path.glob("ml*"))
    page = next((tmp_path / ".llmpipe" / "runs").glob("*/report.html"))
    (link,) = (folder / "wandb").iterdir()
    relative = os.path.relpath(link, page.parent)
    assert f'href="{relative}"' in page.read_text()
    assert (page.parent / relative).is_dir()
    copied = f"llmpipe get spec.yaml sft.tracking ./tracking &amp;&amp; wandb sync ./tracking/wandb/{link.name}"
    assert copied in page.read_text()
    assert "mlflow ui --backend-store-uri" in page.read_text()


def logged_by_wandb(file: Path) -> list[float]:
    """Return the losses in the log of an offline run, by W&B's own messages."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for data in log_records(file.read_bytes()):
        for item in Record.FromString(data).history.item:
            if "/".join(item.nested_key) in ("train/loss", "loss") or item.key == "train/loss":
                found.append(float(item.value_json))
    return found


def log_records(data: bytes) -> Iterator[bytes]:
    """Yield the records of W&B's file: LevelDB's log format in blocks of 32 KiB after 7 bytes."""
    at, part = 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:  # too little for a header: the rest of the block is empty
            at += BLOCK - at % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield part
            part = b""


def logged_by_tensorboard(file: Path) -> list[float]:
    """Return the losses in a file of events, as TensorBoard's own reader finds them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(file))
    events.Reload()
    return [event.value for event in events.Scalars("train/loss")]


def logged_by_mlflow(store: Path) -> list[float]:
    """Return the losses of the only run in a folder, as MLflow's own client finds them."""
    from mlflow import MlflowClient

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        client = MlflowClient(store.as_uri())
        experiment = client.get_experiment_by_name("tickets")
        assert experiment is not None
        (run,) = client.search_runs([experiment.experiment_id])
        assert run.info.status == "FINISHED"
        return [each.value for each in client.get_metric_history(run.info.run_id, "loss")]


def config(**block: Any) -> TrainConfig:
    """Return a stage with these Axolotl keys."""
    return TrainConfig(kind="train", base_model="b", data="d", axolotl={"adapter": "lora", **block})


@pytest.mark.parametrize(
    ("block", "kept"),
    [
        (OFFLINE, ["wandb", "tensorboard"]),
        ({"use_wandb": True, "wandb_mode": "offline"}, ["wandb"]),
        ({"wandb_project": "tickets"}, []),
        ({"wandb_mode": "offline"}, []),
        ({"use_mlflow": True}, ["mlflow"]),
        ({"mlflow_experiment_name": "tickets"}, ["mlflow"]),
        ({"use_mlflow": True, "mlflow_tracking_uri": "http://127.0.0.1:5000"}, []),
    ],
)
def test_the_output_is_there_where_something_is_written(
    block: dict[str, Any], kept: list[str]
) -> None:
    """A tracker that reports to a server leaves nothing to keep."""
    assert kept_trackers(block, {}) == kept
    assert kept_trackers({"use_mlflow": True}, {"MLFLOW_TRACKING_URI": "http://h"}) == []
    assert ("tracking" in Train.ports(config(**block)).outputs) == bool(kept)


def test_what_is_not_kept_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trackers that only the Axolotl file names, and a server that only the environment names."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (said,) = tracking_notes({}, OFFLINE, {})
    assert said.startswith("what wandb and tensorboard write is not kept")
    mlflow, server = {"use_mlflow": True}, {"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"}
    assert [*tracking_notes(mlflow, mlflow, {})] == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    (said,) = tracking_notes(mlflow, mlflow, {})
    assert said.startswith("MLFLOW_TRACKING_URI of this environment is not used")
    told = {**mlflow, "mlflow_tracking_uri": "http://127.0.0.1:5000"}
    assert [*tracking_notes(mlflow, mlflow, server), *tracking_notes(told, told, {})] == []


def test_where_mlflow_writes(tmp_path: Path) -> None:
    """Below the training's folder, or where the stage says; a folder has to be allowed."""
    mlflow: dict[str, Any] = {"use_mlflow": True}
    allowed = {"MLFLOW_ALLOW_FILE_STORE": "true"}
    uri = (tmp_path / "tracking" / "mlflow").as_uri()
    assert tracking_environment(tmp_path, mlflow, {}) == {"MLFLOW_TRACKING_URI": uri, **allowed}
    for place, found in (("http://h:1", {}), ("/runs", allowed), ("file:///runs", allowed)):
        block = {**mlflow, "mlflow_tracking_uri": place}
        assert tracking_environment(tmp_path, block, {}) == found
        assert tracking_environment(tmp_path, mlflow, {"MLFLOW_TRACKING_URI": place}) == found


@pytest.mark.parametrize(
    ("given", "place"),
    [
        (
            "axolotl: {use_mlflow: true, mlflow_tracking_uri: 'https://ann:hunter22@h/'}",
            "axolotl.m",
        ),
        (
            "axolotl: {use_mlflow: true, mlflow_tracking_uri: 'https://hunter22@h:5000'}",
            "axolotl.m",
        ),
        (
            "launch: {env: {MLFLOW_TRACKING_URI: 'https://ann:hunter22@h'}}, axolotl: {}",
            "launch.env",
        ),
    ],
)
def test_an_address_with_credentials_is_refused(
    tmp_path: Path, given: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the block and in the variables; the message does not repeat them."""
    head, _, _ = SPEC.partition("    launch:")
    (tmp_path / "spec.yaml").write_text(f"{head}    {given.replace(', axolotl: {}', '')}\n")
    (tmp_path / "rows.jsonl").write_text('{"q": "a", "a": "b"}\n')
    (tmp_path / "base").mkdir()
    assert main(["validate", str(tmp_path / "spec.yaml")]) == 2
    said = capsys.readouterr().err
    assert f"stages.sft.{place}" in said
    assert "the address has credentials" in said
    assert "hunter22" not in said
    with pytest.raises(
        StageError, match=r"my\.yml: mlflow_tracking_uri: the address has"
    ) as caught:
        require_no_credentials({"mlflow_tracking_uri": "http://hunter22@h"}, "my.yml")
    assert "hunter22" not in str(caught.value)


def test_a_copied_run_of_mlflow_has_its_folders(tmp_path: Path) -> None:
    """MLflow finds no run without a folder of artifacts, and an empty folder is not kept."""
    run = tmp_path / "tracking" / "mlflow" / "1" / "2"
    for name in ("metrics", "params", "artifacts"):
        (run / name).mkdir(parents=True)
    (run / "metrics" / "loss").write_text("1 2.5 1\n")
    keep_tracking(tmp_path, tmp_path / "out", ["mlflow"])
    copied = tmp_path / "out" / "mlflow" / "1" / "2"
    assert [path.name for path in (copied / "artifacts").iterdir()] == [".keep"]


def test_a_tracker_that_wrote_nothing_loses_no_training(tmp_path: Path) -> None:
    """It is said, and no run is claimed; what the others wrote is kept."""
    tracking_environment(tmp_path, OFFLINE, {})
    events = tmp_path / "tracking" / "tensorboard" / "events"
    events.parent.mkdir(parents=True)
    events.write_bytes(b"1")
    experiment = tmp_path / "tracking" / "mlflow" / "0" / "meta.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text("name: Default\n")  # an experiment without a run
    kept = tmp_path / "out"
    said = keep_tracking(tmp_path, kept, ["wandb", "tensorboard", "mlflow"])
    assert [text.split(",")[0] for text in said] == ["wandb wrote nothing", "mlflow wrote nothing"]
    assert "WANDB_MODE=disabled" in said[0]
    names = sorted(str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file())
    assert names == ["mlflow.txt", "tensorboard/events", "wandb.txt"]
    assert (kept / "wandb.txt").read_text() == f"{said[0]}\n"


@pytest.mark.parametrize("address", ["http://h:5000", "/srv/runs"])
def test_a_folder_that_the_axolotl_file_takes_away_is_refused(tmp_path: Path, address: str) -> None:
    """Before the training, not after its last step."""
    (tmp_path / "a.yml").write_text(f"adapter: lora\nmlflow_tracking_uri: {address}\n")

    def told(**block: Any) -> list[Finding]:
        stage = msgspec.structs.replace(config(use_mlflow=True, **block), axolotl_file="./a.yml")
        found = Train.review(stage, tmp_path)
        return [each for each in found if not each.warning]

    (found,) = told()
    assert found.field == ("mlflow_tracking_uri",)
    assert found.file is not None
    assert "'tracking'" in found.message
    assert str(found.hint).startswith("repeat mlflow_tracking_uri in the axolotl block")
    assert told(mlflow_tracking_uri=address) == []
    assert told(mlflow_tracking_uri=None) == []


def test_a_missing_package_is_named() -> None:
    """Each tracker's key needs its package, and the command that installs it is shown."""
    needs = Train.needs(config(use_mlflow=True, **OFFLINE), {})
    wanted = {need.name for need in needs} & {"wandb", "tensorboard", "mlflow"}
    assert wanted == {"wandb", "tensorboard", "mlflow"}
    gone = [replace(need, here=False) for need in needs if need.name == "mlflow"]
    assert install_lines(with_mends(gone)) == ["pip install mlflow"]
