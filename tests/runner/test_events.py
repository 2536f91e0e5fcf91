"""``events.jsonl`` and ``run.json`` hold what ``docs/reference/events.md`` says, and nothing else."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from processes import wait_for

from llmpipe.runner.events import NOT_RECORDED
from llmpipe.runner.events import VERSION as EVENTS_VERSION
from llmpipe.runner.outcome import RECORD_VERSION

PAGE = (Path(__file__).parents[2] / "docs/reference/events.md").read_text("utf-8")

Table = dict[str, str]
"""The fields of a table of the page, each with its type in words."""

FAILING = """\
version: 1
name: failing
stages:
  bad: {kind: command, run: "echo trouble; exit 3", outputs: {o: o.txt}, retries: 1}
  below: {kind: command, run: "cat ${inputs.i} > ${outputs.o}", inputs: {i: bad}, outputs: {o: o.txt}}
  good: {kind: command, run: "sleep 1.3; echo 1 > ${outputs.o}", outputs: {o: o.txt}}
"""

SHARED = """\
version: 1
name: shared
cache: {remote: ADDRESS}
stages:
  first: {kind: command, run: "echo 1 > ${outputs.o}", outputs: {o: o.txt}}
  second: {kind: command, run: "cat ${inputs.i} > ${outputs.o}", inputs: {i: first}, outputs: {o: o.txt}}
"""

SAMPLED = """\
version: 1
name: sampled
stages:
  dataset: {kind: format, to: messages, sources: [{data: ./rows.jsonl, sample: 5}]}
"""

SLOW = """\
version: 1
name: slow
stages:
  slow: {kind: command, run: "touch begun; sleep SECONDS; echo 1 > ${outputs.o}", outputs: {o: o.txt}}
  below: {kind: command, run: "cat ${inputs.i} > ${outputs.o}", inputs: {i: slow}, outputs: {o: o.txt}}
"""

ALWAYS = {"run-started", "stage-started", "stage-ended", "run-ended"}
MET = {
    "failure": ALWAYS | {"stage-retry"},
    "stage": ALWAYS | {"warning"},
    "fetching": ALWAYS | {"progress", "fetched"},
    "alone": ALWAYS | {"unreachable"},
    "waiting": ALWAYS | {"waiting"},
    "interrupt": ALWAYS,
    "training": {"trained-rows"},
}
"""The events that the runs of these tests record; a training's in `test_train_packing.py`."""

TYPES: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "whole number": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "list": lambda value: isinstance(value, list),
    "mapping": lambda value: isinstance(value, dict),
    "truth value": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "error": lambda value: bool(value) and fits(value, VALUES["error"], {"log", "tail"}),
    "owner": lambda value: bool(value) and fits(value, VALUES["owner"], {"node"}),
}


def tables(chapter: str) -> dict[str, Table]:
    """Read the tables of a chapter of the page, by the headings that they stand under."""
    text = PAGE.partition(f"\n## {chapter}\n")[2].partition("\n## ")[0]
    assert text
    found: dict[str, Table] = {}
    for section in re.split(r"^### ", f"{chapter}\n{text}", flags=re.MULTILINE):
        rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section, flags=re.MULTILINE)
        found[section.partition("\n")[0]] = dict(rows)
    return found


def fits(value: Mapping[str, Any], table: Table, lacking: Collection[str] = ()) -> bool:
    """Check that a mapping has the fields of a table, each of its type; some may be lacking."""
    assert value.keys() <= table.keys(), f"not in the page: {value.keys() - table.keys()}"
    missing = table.keys() - value.keys() - set(lacking)
    assert not missing, f"only in the page: {missing}"
    for name, item in value.items():
        assert any(TYPES[word](item) for word in table[name].split(" or ")), (name, item)
    return True


EVENTS = tables("Events")
COMMON = EVENTS.pop("Events")
VALUES = tables("Values")
RECORD = tables("`run.json`")


def events_of(home: Path) -> list[dict[str, Any]]:
    """Read what the only run of a home recorded; every line of it is held against the page."""
    (path,) = home.glob("runs/*/events.jsonl")
    found = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for event in found:
        assert event["event"] in EVENTS, event
        fits(event, COMMON | EVENTS[event["event"]])
    return found


def names(events: list[dict[str, Any]], stage: str | None = None) -> list[str]:
    """Return the names of events, of one stage or of all."""
    return [event["event"] for event in events if stage in (None, event.get("stage"))]


def test_the_page_describes_this_version() -> None:
    """The versions that the page promises are those that are written."""
    assert EVENTS_VERSION == RECORD_VERSION == 1
    assert "Both are 1." in PAGE
    assert all(f"`{name}` (" in PAGE for name in NOT_RECORDED)
    assert not NOT_RECORDED & EVENTS.keys()


def test_failure_and_retry(workspace: Any) -> None:
    """A stage that fails is tried again, and what depends on it is blocked: all as described."""
    workspace.write(FAILING)
    workspace.run("-k", "--set", "stages.below.timeout=9", code=1)
    events = events_of(workspace.folder / ".llmpipe")
    assert set(names(events)) == MET["failure"]
    assert names(events)[0] == "run-started"
    assert names(events)[-1] == "run-ended"
    expected = ["stage-started", "stage-retry", "stage-started", "stage-ended"]
    assert names(events, "bad") == expected
    assert names(events, "below") == ["stage-ended"]
    assert names(events, "good") == ["stage-started", "stage-ended"]
    assert events[0]["set"] == ["stages.below.timeout=9"]
    ended = {event["stage"]: event for event in events if event["event"] == "stage-ended"}
    assert {name: event["status"] for name, event in ended.items()} == {
        "bad": "failed", "below": "blocked", "good": "done",
    }  # fmt: skip
    assert ended["bad"]["error"]["tail"] == ["trouble", "trouble"]
    assert ended["good"]["memory"] > 0
    times = [datetime.fromisoformat(event["time"]) for event in events]
    assert times == sorted(times)


def test_the_record_of_a_run(workspace: Any) -> None:
    """``run.json`` and each stage in it have the fields of their tables."""
    workspace.write(FAILING)
    workspace.run("-k", code=1)
    (path,) = (workspace.folder / ".llmpipe").glob("runs/*/run.json")
    record = json.loads(path.read_text("utf-8"))
    fits(record, RECORD["`run.json`"])
    for stage in record["stages"].values():
        fits(stage, EVENTS["stage-ended"])
    for node in record["graph"].values():
        fits(node, RECORD["graph"])
    ended = [e for e in events_of(path.parents[2]) if e["event"] == "stage-ended"]
    for event in ended:
        assert record["stages"][event["stage"]] == {
            name: value for name, value in event.items() if name not in COMMON
        }


def test_what_a_stage_tells(workspace: Any) -> None:
    """Warnings and progress of a stage are recorded as described."""
    row = '{"instruction": "question %d", "output": "answer"}\n'
    (workspace.folder / "rows.jsonl").write_text("".join(row % i for i in range(3)))
    workspace.write(SAMPLED)
    workspace.run()
    events = events_of(workspace.folder / ".llmpipe")
    assert set(names(events)) == MET["stage"]
    assert names(events, "dataset") == ["stage-started", "warning", "stage-ended"]


def test_a_remote_store(workspace: Any, tmp_path: Path) -> None:
    """What comes from a remote store, or cannot be had from it, is recorded as described."""
    workspace.write(SHARED.replace("ADDRESS", "./remote"))
    workspace.run()
    assert workspace.call("push", "spec.yaml").returncode == 0
    workspace.run(LLMPIPE_HOME=str(tmp_path / "fetching"))
    fetched = events_of(tmp_path / "fetching")
    assert names(fetched, "first")[0] == "stage-started"
    assert names(fetched, "first")[-2:] == ["fetched", "stage-ended"]
    assert {e["status"] for e in fetched if e["event"] == "stage-ended"} == {"cached"}
    workspace.write(SHARED.replace("ADDRESS", "/dev/null/nowhere"))
    workspace.run(LLMPIPE_HOME=str(tmp_path / "alone"))
    alone = events_of(tmp_path / "alone")
    assert names(alone).count("unreachable") == 1
    assert set(names(fetched)) == MET["fetching"]
    assert set(names(alone)) == MET["alone"]


def test_waiting_for_another_run(workspace: Any) -> None:
    """The second of two runs waits for the first, and says for which process.

    At the stage after that, either may have to wait.
    """
    workspace.write(SLOW.replace("sleep SECONDS", "until test -e go; do sleep 0.05; done"))
    runs = [workspace.start("run", "spec.yaml")]
    wait_for((workspace.folder / "begun").exists)
    runs.append(workspace.start("run", "spec.yaml"))

    def logs_of_waiting() -> list[Path]:
        paths = (workspace.folder / ".llmpipe").glob("runs/*/events.jsonl")
        return [path for path in paths if '"waiting"' in path.read_text("utf-8")]

    wait_for(logs_of_waiting)
    (second,) = logs_of_waiting()
    (workspace.folder / "go").touch()
    for run in runs:
        run.communicate(timeout=60)
    assert [run.returncode for run in runs] == [0, 0]
    events = [json.loads(line) for line in second.read_text("utf-8").splitlines()]
    for event in events:
        fits(event, COMMON | EVENTS[event["event"]])
    assert names(events, "slow") == ["stage-started", "waiting", "stage-ended"]
    assert set(names(events)) == MET["waiting"]


def test_an_interrupt(workspace: Any) -> None:
    """An interrupted run ends its record as any other: every stage, then the run."""
    workspace.write(SLOW.replace("SECONDS", "60"))
    process = workspace.start("run", "spec.yaml")
    wait_for((workspace.folder / "begun").exists)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    events = events_of(workspace.folder / ".llmpipe")
    statuses = {e["stage"]: e["status"] for e in events if e["event"] == "stage-ended"}
    assert statuses == {"slow": "interrupted", "below": "blocked"}
    assert events[-1]["status"] == "interrupted"
    assert set(names(events)) == MET["interrupt"]


def test_every_described_event_is_met() -> None:
    """The page describes nothing that no run records: the tests above meet all of it."""
    assert set().union(*MET.values()) == EVENTS.keys()
