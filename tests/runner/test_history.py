"""What earlier runs have left is read whatever state it is in, and compared by what it means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmpipe.runner.history import (
    compare,
    flatten,
    read_run,
    read_runs,
    read_unfinished,
    table,
    turned,
)
from llmpipe.runner.records import KeyRecord, StoredOutput
from llmpipe.runner.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    found = Store(tmp_path / ".llmpipe")
    found.create()
    return found


def a_run(name: str, document: dict[str, Any], **stages: dict[str, Any]) -> dict[str, Any]:
    """A run's record as far as comparisons read it."""
    filled = {
        stage: {"key": None, "status": "done", "seconds": 1.0, "metrics": {}, **fields}
        for stage, fields in stages.items()
    }
    return {"run": name, "started": name, "document": document, "stages": filled}


def test_only_settings_that_differ_are_told(store: Store) -> None:
    """Settings are compared leaf by leaf; what one run lacks is None; equal ones are left out."""
    one = a_run("1", {"name": "x", "stages": {"sft": {"lr": 1e-4, "layers": ["q", "v"]}}})
    two = a_run("2", {"name": "x", "stages": {"sft": {"lr": 5e-4, "layers": ["q", "k"], "r": 8}}})
    three = a_run("3", {"name": "x", "stages": {"sft": {"lr": 1e-4, "layers": ["q"], "r": None}}})
    assert compare([one, two, three], store)["config"] == {
        "stages.sft.lr": [1e-4, 5e-4, 1e-4],
        "stages.sft.layers.1": ["v", "k", None],
        "stages.sft.r": [None, 8, None],
    }


def test_every_figure_is_told(store: Store) -> None:
    """Figures at any depth stand side by side, also where they are equal; curves and truth values
    are not metrics; texts are told where they differ."""
    one = a_run("1", {}, dev={"metrics": {"sft": {"rouge_l": 0.5}, "rows": 9, "ok": True}},
                best={"metrics": {"point": "lr=1", "by": "dev.loss"}})  # fmt: skip
    two = a_run("2", {}, dev={"metrics": {"sft": {"rouge_l": 0.5}, "loss": [[1, 2.5]]}},
                best={"metrics": {"point": "lr=2", "by": "dev.loss"}})  # fmt: skip
    assert compare([one, two], store)["metrics"] == {
        "dev.sft.rouge_l": [0.5, 0.5],
        "dev.rows": [9, None],
        "best.point": ["lr=1", "lr=2"],
    }


def test_seconds_are_those_of_stages_that_ran(store: Store) -> None:
    """A cached or failed stage has no time to compare."""
    one = a_run("1", {}, a={"seconds": 3.5}, b={"status": "cached"}, c={"status": "failed"})
    two = a_run("2", {}, a={"status": "cached"}, b={"status": "cached"})
    assert compare([one, two], store)["seconds"] == {"a": [3.5, None]}


def keep(store: Store, key: str, inputs: dict[str, str], made: str) -> dict[str, Any]:
    """Put a record into the store; return the fields of the stage that it belongs to."""
    output = StoredOutput("records", "0" * 64, "o", made, 1)
    ingredients = {"inputs": {port: {"digest": value} for port, value in inputs.items()}}
    store.save(KeyRecord(key, "command", ingredients, {"o": output}, {}, "", 1.0, ""))
    return {"key": key}


def test_inputs_from_outside_that_differ_are_told(store: Store) -> None:
    """A file and a hub commit that changed are told whole; what a stage made follows from them, and
    what is no longer known differs from nothing."""
    hub = "hub:Qwen/Qwen2.5-7B-Instruct@"
    first = a_run(
        "1", {},
        data=keep(store, "k1", {"rows": "a" * 64, "same": "d" * 64}, "e" * 64),
        sft=keep(store, "k2", {"base": f"{hub}aaa", "data": "e" * 64}, "b" * 64),
    )  # fmt: skip
    second = a_run(
        "2", {},
        data=keep(store, "k3", {"rows": "c" * 64, "same": "d" * 64}, "f" * 64),
        sft=keep(store, "k4", {"base": f"{hub}bbb", "data": "f" * 64}, "b" * 64),
    )  # fmt: skip
    forgotten = a_run("3", {}, data={"key": "gone"}, sft={"key": "gone"})
    found = compare([first, second, forgotten], store)["data"]
    assert found == {
        "data.rows": ["a" * 64, "c" * 64, None],
        "sft.base": [f"{hub}aaa", f"{hub}bbb", None],
    }
    assert compare([first, forgotten], store)["data"] == {}


def test_tables_by_column_and_by_line() -> None:
    """Columns are as wide as they must be; digests are short, nothing is a dash, long texts end."""
    rows = {"lr": [0.0001, None], "data": ["a" * 64, "hub:x@1"], "text": ["x" * 99, True]}
    assert table(rows, ["one", "two"]) == [
        "      one                                                           two",
        "lr    0.0001                                                        –",
        "data  aaaaaaaaaaaa                                                  hub:x@1",
        f"text  {'x' * 59}…  True",
    ]
    assert turned({"lr": [1, 2], "loss": [3, None]}, ["one", "two"]) == (
        {"one": [1, 3], "two": [2, None]},
        ["lr", "loss"],
    )


def test_flatten_gives_leaves() -> None:
    """Mappings and lists are gone into, with dotted names; a plain value has no name."""
    value = {"a": {"b": [1, {"c": None}]}, "d": []}
    assert dict(flatten(value)) == {"a.b.0": 1, "a.b.1.c": None}
    assert dict(flatten(7)) == {"": 7}


ENDED = {
    "run": "r4", "name": "x", "started": "t9", "ended": "t9", "seconds": 0.1, "status": "done",
    "document": {}, "stages": {}, "profiles": [], "set": [], "llmpipe": "0", "python": "3",
}  # fmt: skip
"""A run that has ended, as far as it is read here."""


def write_events(folder: Path, *lines: str) -> None:
    folder.mkdir(parents=True)
    (folder / "events.jsonl").write_text("".join(lines))


def test_runs_without_a_record_are_told_from_their_events(store: Store) -> None:
    """A run that was killed says what it was and what had ended; a torn line ends the reading, and
    folders without a first event, or with a record of another shape, are not runs."""
    start = {"event": "run-started", "time": "t0", "run": "r1", "name": "x", "spec": "s.yaml",
             "profiles": ["gpu"], "set": [], "stages": ["a", "b"]}  # fmt: skip
    end = {"event": "stage-ended", "time": "t1", "stage": "a", "kind": "command", "status": "done",
           "key": None, "seconds": 1.0, "causes": [], "metrics": {}, "summary": "", "error": None}  # fmt: skip
    lines = [json.dumps(start) + "\n", json.dumps(end) + "\n", '{"event": "stage-en']
    write_events(store.runs / "r1", *lines)
    write_events(store.runs / "r2", '{"event": "run-sta')
    write_events(store.runs / "r3")
    write_events(store.runs / "r4", *lines)
    (store.runs / "r4" / "run.json").write_text(json.dumps(ENDED))
    (store.runs / "r6").mkdir()
    (store.runs / "r6" / "run.json").write_text('{"run": "r6", "started": "t9"}')
    (store.runs / "r5").mkdir()
    (store.runs / "r5" / "run.json").write_text('{"run": ')
    assert read_unfinished(store) == {
        "r1": {
            "run": "r1", "name": "x", "spec": "s.yaml", "profiles": ["gpu"], "set": [],
            "started": "t0", "ended": None, "seconds": None, "status": "unfinished",
            "stages": {"a": end},
        }
    }  # fmt: skip
    assert list(read_runs(store)) == ["r4"]


@pytest.mark.parametrize(
    "change",
    [
        {"started": None},
        {"profiles": 3},
        {"stages": []},
        {"stages": {"a": {}}},
        {"stages": {"a": {"status": "done", "key": 3, "seconds": 1, "metrics": {}}}},
    ],
)
def test_a_record_of_another_shape_is_skipped(store: Store, change: dict[str, Any]) -> None:
    """Listing runs, or what they need, never meets a field of another type."""
    for name, record in (("r4", ENDED), ("r5", ENDED | change), ("r6", {}), ("r7", [])):
        (store.runs / name).mkdir(parents=True)
        (store.runs / name / "run.json").write_text(json.dumps(record))
    assert list(read_runs(store)) == ["r4"]
    assert [read_run(store.runs / name) for name in ("r4", "r5", "r6", "r7", "r8")] == [
        ENDED, None, None, None, None,
    ]  # fmt: skip
