"""A split GGUF as an input: all its parts count, by content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from workspace import Workspace

pytestmark = pytest.mark.slow

NAMES = tuple(f"m-{number:05d}-of-00003.gguf" for number in (1, 2, 3))
SPEC = """\
version: 1
name: parts
stages:
  it: {kind: command, run: "cat ${inputs.m} > ${outputs.o}", inputs: {m: ./m-00001-of-00003.gguf}, outputs: {o: o.txt}}
"""


@pytest.fixture
def done(tmp_path: Path) -> Workspace:
    """A workspace whose one stage has read a split GGUF."""
    for number, name in enumerate(NAMES):
        (tmp_path / name).write_text(f"part {number}\n", "utf-8")
    space = Workspace(tmp_path)
    space.write(SPEC)
    assert space.run()["stages"]["it"]["status"] == "done"
    return space


def planned(space: Workspace) -> dict[str, Any]:
    """Plan the stage."""
    stage: dict[str, Any] = space.plan()["it"]
    return stage


def test_nothing_changed(done: Workspace) -> None:
    """The stage is fresh, to the plan and to a second run."""
    assert planned(done)["status"] == "cached"
    assert done.run()["stages"]["it"]["status"] == "cached"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_changed_part_is_seen_and_named(done: Workspace, number: int) -> None:
    """The stage runs again, and the plan says because of which file."""
    (done.folder / NAMES[number]).write_text("other\n", "utf-8")
    stage = planned(done)
    assert stage["status"] != "cached"
    (cause,) = stage["causes"]
    assert cause["files"] == {NAMES[number]: "changed"}
    assert done.run()["stages"]["it"]["status"] == "done"


def test_swapped_parts_are_seen(done: Workspace) -> None:
    """The same contents in another order are another model."""
    second, third = (done.folder / name for name in NAMES[1:])
    kept = second.read_bytes()
    second.write_bytes(third.read_bytes())
    third.write_bytes(kept)
    assert planned(done)["status"] != "cached"


def test_a_deleted_part_is_an_error(done: Workspace) -> None:
    """Also where everything was fresh before: exit 2, with the place."""
    (done.folder / NAMES[2]).unlink()
    result = done.call("run", "spec.yaml")
    assert result.returncode == 2
    assert f"missing next to it: {NAMES[2]}" in result.stderr
    assert "spec.yaml:4:" in result.stderr


def test_names_do_not_count(done: Workspace) -> None:
    """As with one file: a renamed model is the same model."""
    for name in NAMES:
        (done.folder / name).rename(done.folder / name.replace("m-", "other-"))
    done.write(SPEC.replace("./m-", "./other-"))
    assert planned(done)["status"] == "cached"


def test_a_lock_holds_every_part(done: Workspace) -> None:
    """`--locked` refuses a run whose second part has drifted."""
    (done.folder / NAMES[1]).write_text("drifted\n", "utf-8")
    result = done.call("run", "spec.yaml", "--locked")
    assert result.returncode != 0
    assert "lock" in result.stderr
