"""Retries and time limits: how often, how long after, what is told, and what the others do."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

FLAKY = """\
version: 1
name: flaky
stages:
  shaky:
    kind: command
    run: 'date +%s.%N >> tries; test $(wc -l < tries) -gt FAILS && echo ok > ${outputs.o}'
    outputs: {o: o.txt}
    retries: RETRIES
  after: {kind: command, run: 'cat ${inputs.i} > ${outputs.o}', inputs: {i: shaky}, outputs: {o: o.txt}}
"""


def flaky(space: Any, fails: int, retries: int) -> None:
    """Write a spec whose first stage fails some times, and is tried again some times."""
    space.write(FLAKY.replace("FAILS", str(fails)).replace("RETRIES", str(retries)))


def tries(space: Any) -> list[float]:
    """Return the times at which the shaky stage was tried."""
    return [float(line) for line in (space.folder / "tries").read_text().split()]


def events(space: Any, result: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """Return the recorded events of one kind."""
    path = space.folder / ".llmpipe" / "runs" / result["run"] / "events.jsonl"
    found = map(json.loads, path.read_text().splitlines())
    return [event for event in found if event["event"] == kind]


def test_a_stage_that_fails_twice_is_done_at_the_third_try(workspace: Any) -> None:
    """After a second, then after two; what depends on it runs as usual."""
    flaky(workspace, fails=2, retries=3)
    result = workspace.run()
    assert {stage["status"] for stage in result["stages"].values()} == {"done"}
    first, second, third = tries(workspace)
    assert 1.0 <= second - first < 2.0
    assert 2.0 <= third - second < 3.5
    assert "error" not in result["stages"]["shaky"]


def test_every_try_is_on_record(workspace: Any) -> None:
    """Events say which try it is, when the next is due, and why the last failed."""
    flaky(workspace, fails=1, retries=2)
    result = workspace.run()
    (again,) = events(workspace, result, "stage-retry")
    assert {k: again[k] for k in ("stage", "attempt", "retries", "pause")} == {
        "stage": "shaky", "attempt": 1, "retries": 2, "pause": 1.0,
    }  # fmt: skip
    assert again["error"]["message"] == "the command ended with exit status 1"
    started = [e for e in events(workspace, result, "stage-started") if e["stage"] == "shaky"]
    assert [event["attempt"] for event in started] == [0, 1]
    ended = [e["status"] for e in events(workspace, result, "stage-ended") if e["stage"] == "shaky"]
    assert ended == ["done"]


def test_a_person_reads_of_every_try(workspace: Any) -> None:
    """The failure, which try comes next, and when."""
    flaky(workspace, fails=1, retries=1)
    told = workspace.call("run", "spec.yaml").stderr
    assert "stage shaky failed: the command ended with exit status 1" in told
    assert "shaky: try 2 of 2 in 1 s" in told
    assert "▸ shaky (command, try 2)" in told
    assert "✓ shaky: done" in told


def test_when_all_tries_fail_the_stage_has_failed(workspace: Any) -> None:
    """Once more than there are retries; then it is as any failure."""
    flaky(workspace, fails=9, retries=1)
    result = workspace.run(code=1)
    assert len(tries(workspace)) == 2
    assert result["stages"]["shaky"]["status"] == "failed"
    assert result["stages"]["after"]["status"] == "blocked"
    assert result["stages"]["shaky"]["error"]["message"] == "the command ended with exit status 1"


def test_without_retries_there_is_one_try(workspace: Any) -> None:
    """Nothing is tried again unasked."""
    flaky(workspace, fails=1, retries=0)
    workspace.run(code=1)
    assert len(tries(workspace)) == 1


def test_others_run_while_a_stage_waits_for_its_next_try(workspace: Any) -> None:
    """The pause holds no job: with -j 1 another stage runs in it."""
    flaky(workspace, fails=1, retries=1)
    other = "  other: {kind: command, run: 'date +%s.%N > other; echo > ${outputs.o}', outputs: {o: o.txt}}\n"
    workspace.write(workspace.spec.read_text() + other)
    workspace.run("-j1")
    first, second = tries(workspace)
    assert first < float((workspace.folder / "other").read_text()) < second


def test_a_failure_elsewhere_ends_the_tries(workspace: Any) -> None:
    """What failed and waits for another try does not keep a failed run going."""
    flaky(workspace, fails=9, retries=8)
    other = "  other: {kind: command, run: 'sleep 0.3; exit 3', outputs: {o: o.txt}}\n"
    workspace.write(workspace.spec.read_text() + other)
    began = time.monotonic()
    result = workspace.run("-j2", code=1)
    assert time.monotonic() - began < 10
    assert result["stages"]["other"]["status"] == "failed"
    assert result["stages"]["shaky"]["status"] == "failed"
    assert result["stages"]["shaky"]["error"]["message"] == "the command ended with exit status 1"


def test_a_time_limit_holds_for_each_try(workspace: Any) -> None:
    """A try over its time is stopped with all its children and tried again."""
    workspace.write(
        """\
version: 1
name: slow
stages:
  slow:
    kind: command
    run: 'echo $$ >> pids; test $(wc -l < pids) -gt 1 || sleep 60; echo > ${outputs.o}'
    outputs: {o: o.txt}
    timeout: 0.8
    retries: 1
"""
    )
    result = workspace.run()
    assert result["stages"]["slow"]["status"] == "done"
    (again,) = events(workspace, result, "stage-retry")
    assert again["error"]["message"] == "it ran longer than its timeout of 0.8 s"
    first = int((workspace.folder / "pids").read_text().split()[0])
    assert not Path(f"/proc/{first}").exists()


def test_ctrl_c_ends_the_waiting_for_a_try(workspace: Any) -> None:
    """No stage is tried again after an interrupt."""
    import signal

    flaky(workspace, fails=9, retries=9)
    process = workspace.start("run", "spec.yaml", "--json")
    deadline = time.monotonic() + 30
    while not (workspace.folder / "tries").exists() or len(tries(workspace)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)  # it failed for the third time and waits four seconds now
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert time.monotonic() - began < 3
    assert len(tries(workspace)) == 3
    statuses = {name: stage["status"] for name, stage in json.loads(out)["stages"].items()}
    assert statuses == {"shaky": "failed", "after": "blocked"}


def test_limits_that_make_no_sense_are_refused(workspace: Any) -> None:
    """No time at all and less than no tries are problems of the spec."""
    for field, message in (
        ("timeout: 0", "a number above 0 and at most 1000000000, not 0"),
        ("timeout: -3", "a number above 0"),
        ("retries: -1", "a whole number from 0 to"),
    ):
        workspace.write(FLAKY.replace("retries: RETRIES", field))
        result = workspace.call("run", "spec.yaml")
        assert result.returncode == 2, result.stderr
        assert message in result.stderr
