"""How long a stage will take, by what it did last and by what has changed since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from workspace import Workspace

from llmpipe.contracts import Effort
from llmpipe.runner.plan import make_plan
from llmpipe.runner.project import Project
from llmpipe.runner.store import Store
from llmpipe.stages.generate import Generate
from llmpipe.stages.train_effort import effort


@pytest.fixture
def ran(workspace: Workspace) -> Workspace:
    """A chain whose stages took 100 seconds each when they last ran."""
    workspace.run()
    store = Store(workspace.folder / ".llmpipe")
    for path in store.keys.iterdir():
        record = store.record(path.stem)
        assert record is not None
        store.save(msgspec.structs.replace(record, seconds=100.0))
    return workspace


def _seconds(workspace: Workspace, **how: Any) -> dict[str, float | None]:
    forced = how.pop("forced", ())
    plans = make_plan(Project.open(workspace.spec, **how), forced)
    return {name: plan.seconds for name, plan in plans.items() if plan.status == "run"}


def test_the_same_again_takes_as_long(ran: Workspace) -> None:
    """What is forced, and all that may depend on it, is done as it was."""
    assert _seconds(ran, forced=["first"]) == {"first": 100, "second": 100, "third": 100}


def test_three_times_the_input_takes_three_times_as_long(ran: Workspace) -> None:
    """Also where it comes from a stage that is still to run."""
    path = ran.folder / "a.txt"
    path.write_text(path.read_text() * 3)
    assert _seconds(ran) == {"first": 300, "second": 300, "third": 300}


def test_what_cannot_be_told_is_unknown(ran: Workspace) -> None:
    """How long another command takes is unknown, and so is what comes after it."""
    assert _seconds(ran, settings=["params.word=two"]) == {
        "first": None, "second": None, "third": None,
    }  # fmt: skip
    told = ran.call("plan", "spec.yaml", "--set", "params.word=two").stdout
    assert "run, time unknown" in told
    assert "3 to run, 0 cached" in told


def test_a_record_that_does_not_say_what_it_read(ran: Workspace) -> None:
    """Early ones do not: of another input it is unknown then, of the same one as before."""
    store = Store(ran.folder / ".llmpipe")
    for path in store.keys.iterdir():
        record = store.record(path.stem)
        assert record is not None
        store.save(msgspec.structs.replace(record, read={}))
    assert set(_seconds(ran, forced=["first"]).values()) == {100}
    (ran.folder / "a.txt").write_text("another\n")
    assert set(_seconds(ran).values()) == {None}


def test_the_files_of_a_folder_count_together(workspace: Workspace, tmp_path: Path) -> None:
    """A file more in a folder is that much more to do."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_text("x" * 100)
    workspace.write(
        "version: 1\nname: folder\nstages:\n  s: {kind: command, inputs: {i: ./data}, "
        'run: "ls ${inputs.i} > ${outputs.o}", outputs: {o: o.txt}}\n'
    )
    workspace.run()
    (tmp_path / "data" / "b").write_text("y" * 50)
    assert make_plan(Project.open(workspace.spec))["s"].factor == 1.5


def _train(**block: Any) -> Effort | None:
    return effort({"axolotl": {"adapter": "lora", **block}})


def test_a_training_counts_rows_in_steps_or_passes() -> None:
    """Five times the steps take five times as long, whatever the data; a file may say anything."""
    twelve, sixty = _train(max_steps=12), _train(max_steps=60)
    assert twelve is not None
    assert sixty is not None
    assert sixty.amount / twelve.amount == 5
    assert not sixty.grows
    assert "axolotl.learning_rate" in sixty.covers
    assert "axolotl.sequence_len" not in sixty.covers
    double = _train(max_steps=12, micro_batch_size=8)
    assert double is not None
    assert double.amount == 2 * twelve.amount
    epochs = _train(num_epochs=3)
    assert epochs is not None
    assert (epochs.amount, epochs.grows) == (3, True)
    assert effort({"axolotl": {}, "axolotl_file": {"input": "axolotl_file"}}) is None


def test_generation_counts_rows() -> None:
    """Its seeds are only drawn from."""
    found = Generate.effort({"count": 300})
    assert (found.amount, found.grows) == (300, False)
