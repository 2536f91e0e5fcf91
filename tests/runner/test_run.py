"""Running for real, through the command line: freshness, failure, Ctrl-C, kill -9, a full disk."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from processes import holds_text, wait_for
from workspace import CHAIN

from llmpipe.runner.store import Store

Statuses = Callable[[dict[str, Any]], dict[str, str]]

SLOW = """\
version: 1
name: slow
stages:
  first: {kind: command, run: "echo first >> trace; echo 1 > ${outputs.o}", outputs: {o: o.txt}}
  slow: {kind: command, run: "echo slow >> trace; echo $$ > pid; sleep 60; cat ${inputs.i} > ${outputs.o}", inputs: {i: first}, outputs: {o: o.txt}}
"""


def alive(pid: int) -> bool:
    """Tell whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_second_run_does_nothing(workspace: Any, statuses: Statuses) -> None:
    """A first run runs everything, a second one nothing."""
    assert set(statuses(workspace.run()).values()) == {"done"}
    assert workspace.trace() == ["first", "second", "third"]
    assert set(statuses(workspace.run()).values()) == {"cached"}
    assert workspace.trace() == []


EDITS: list[tuple[str, Callable[[str], str], list[str]]] = [
    ("a comment", lambda s: "# hello\n" + s, []),
    ("an indent", lambda s: s.replace("    run:", "        run:").replace(
        "    kind: command\n", "        kind: command\n").replace(
        "    inputs: {src", "        inputs: {src").replace(
        "    outputs: {o: o.txt}\n  second", "        outputs: {o: o.txt}\n  second"), []),
    ("a description", lambda s: s.replace("  first:\n", "  first:\n    description: d\n"), []),
    ("the order of keys", lambda s: s.replace("params: {word: one}\n", "").replace(
        "name: chain", "params: {word: one}\nname: chain"), []),
    ("a timeout", lambda s: s.replace("  first:\n", "  first:\n    timeout: 50\n"), []),
    ("a renamed stage", lambda s: s.replace("second", "middle").replace("echo middle", "echo second"), []),
    ("a parameter that changes the output", lambda s: s.replace("word: one", "word: two"),
     ["first", "second", "third"]),
    ("a command that gives the same output", lambda s: s.replace("sort", "sort  "), ["second"]),
    ("an undone edit", lambda s: s, []),
]  # fmt: skip


@pytest.mark.parametrize(("name", "edit", "expected"), EDITS, ids=[e[0] for e in EDITS])
def test_an_edit_reruns_what_it_must_and_nothing_else(
    workspace: Any, name: str, edit: Callable[[str], str], expected: list[str]
) -> None:
    """What does not shape an artifact reruns nothing; what does reruns just that."""
    workspace.run()
    workspace.trace()
    text = workspace.spec.read_text()
    workspace.write(edit(text))
    assert name == "an undone edit" or edit(text) != text
    workspace.run()
    assert workspace.trace() == expected
    workspace.write(text)
    workspace.run()
    assert workspace.trace() == []


def test_data_is_seen_by_content(workspace: Any) -> None:
    """A touched file reruns nothing; one changed byte reruns; the byte put back is cached."""
    workspace.run()
    workspace.trace()
    data = workspace.folder / "a.txt"
    os.utime(data)
    workspace.run()
    assert workspace.trace() == []
    data.write_text("x\nz\n")
    workspace.run()
    assert workspace.trace() == ["first", "second", "third"]
    data.write_text("x\ny\n")
    workspace.run()
    assert workspace.trace() == []


def test_the_plan_says_why(workspace: Any) -> None:
    """A plan names field, old and new value, and the upstream stage, before anything runs."""
    assert workspace.plan()["first"]["causes"] == [{"cause": "new"}]
    workspace.run()
    plan = workspace.plan("--set", "params.word=two")
    (cause,) = plan["first"]["causes"]
    assert (cause["cause"], cause["field"]) == ("config", "stages.first.run")
    assert "echo one" in cause["old"]
    assert "echo two" in cause["new"]
    assert plan["second"]["causes"] == [{"cause": "upstream", "stage": "first", "pending": True}]
    assert plan["second"]["key"] is None
    (workspace.folder / "a.txt").write_text("other\n")
    assert workspace.plan()["first"]["causes"] == [{"cause": "file", "path": "./a.txt"}]
    check = workspace.call("plan", "spec.yaml", "--check")
    assert check.returncode == 3


def test_a_lost_object_is_made_again(workspace: Any) -> None:
    """An artifact that vanished from the store is a cause, and comes back."""
    result = workspace.run()
    path = Path(result["stages"]["second"]["outputs"]["o"])
    path.parent.chmod(0o755)
    path.unlink()
    assert workspace.plan()["second"]["causes"] == [{"cause": "missing", "output": "o"}]
    workspace.trace()
    workspace.run()
    assert workspace.trace() == ["second"]
    assert path.exists()


def test_only_from_and_force(workspace: Any, statuses: Statuses) -> None:
    """--only runs a stage and its needs; --from reruns downward; --force one stage."""
    assert statuses(workspace.run("--only", "second")) == {
        "first": "done", "second": "done", "third": "skipped",
    }  # fmt: skip
    workspace.run()
    workspace.trace()
    workspace.run("--from", "second")
    assert workspace.trace() == ["second", "third"]
    workspace.run("--force", "first")
    assert workspace.trace() == ["first"]
    wrong = workspace.call("run", "spec.yaml", "--only", "thrid")
    assert wrong.returncode == 2
    assert "did you mean 'third'?" in wrong.stderr


def test_dry_run_runs_nothing(workspace: Any) -> None:
    """--dry-run shows the plan and leaves no store behind."""
    result = workspace.call("run", "spec.yaml", "--dry-run")
    assert "3 to run" in result.stdout
    assert workspace.trace() == []


def test_a_failure_blocks_what_hangs_on_it(workspace: Any, statuses: Statuses) -> None:
    """The failing stage shows its log; dependents are blocked; with -k the others go on."""
    workspace.write(
        workspace.spec.read_text().replace("sort ${inputs.i}", "echo oh no; false")
        + '  other: {kind: command, run: "echo other >> trace; echo > ${outputs.o}", outputs: {o: o.txt}}\n'
    )
    result = workspace.run("-j1", code=1)
    assert statuses(result) == {
        "first": "done", "second": "failed", "third": "blocked", "other": "blocked",
    }  # fmt: skip
    error = result["stages"]["second"]["error"]
    assert error["message"] == "the command ended with exit status 1"
    assert "oh no" in error["tail"]
    result = workspace.run("-k", code=1)
    assert statuses(result)["other"] == "done"
    assert statuses(result)["first"] == "cached"


def test_an_output_that_was_not_written_is_a_failure(workspace: Any) -> None:
    """An exit status of 0 is not believed: the declared output must be there."""
    workspace.write(workspace.spec.read_text().replace("sort ${inputs.i} > ${outputs.o}", "true"))
    error = workspace.run(code=1)["stages"]["second"]["error"]
    assert "did not write its output 'o'" in error["message"]


def test_a_timeout_stops_the_stage(workspace: Any) -> None:
    """A stage over its time is stopped with all its children and counts as failed."""
    workspace.write(SLOW.replace("slow: {kind", "slow: {timeout: 1, kind"))
    error = workspace.run(code=1)["stages"]["slow"]["error"]
    assert "longer than its timeout of 1 s" in error["message"]
    assert not alive(int((workspace.folder / "pid").read_text()))


def test_ctrl_c_leaves_no_child_and_keeps_what_is_done(workspace: Any, statuses: Statuses) -> None:
    """SIGINT ends a run with 130 within five seconds; the next run goes on where it stopped."""
    workspace.write(SLOW)
    process = workspace.start("run", "spec.yaml", "--set", "stages.slow.timeout=90")
    wait_for(lambda: holds_text(workspace.folder / "pid"))
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert time.monotonic() - began < 5
    assert "continue with: llmpipe run spec.yaml --set stages.slow.timeout=90\n" in err
    assert not alive(int((workspace.folder / "pid").read_text()))
    workspace.trace()
    workspace.write(SLOW.replace("sleep 60", "sleep 0"))
    assert statuses(workspace.run()) == {"first": "cached", "slow": "done"}
    assert workspace.trace() == ["slow"]


def test_what_a_worker_finishes_after_its_head_died_is_kept(
    workspace: Any, statuses: Statuses
) -> None:
    """kill -9 of the head: the orphan finishes and publishes; the next run finds it."""
    workspace.write(SLOW.replace("sleep 60", "sleep 2"))
    process = workspace.start("run", "spec.yaml")
    wait_for(lambda: holds_text(workspace.folder / "pid"))
    process.kill()
    process.communicate()
    result = workspace.run()
    assert set(statuses(result).values()) <= {"cached"}
    assert workspace.trace() == ["first", "slow"]


def test_kill_9_of_the_worker_leaves_the_store_whole(workspace: Any, statuses: Statuses) -> None:
    """A killed worker is a clear failure; nothing half-made is published; the next run heals."""
    workspace.write(SLOW)
    process = workspace.start("run", "spec.yaml", "--json")
    wait_for(lambda: holds_text(workspace.folder / "pid"))
    shell = int((workspace.folder / "pid").read_text())
    os.killpg(os.getpgid(shell), signal.SIGKILL)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "worker was killed" in json.loads(out)["stages"]["slow"]["error"]["message"]
    workspace.write(SLOW.replace("sleep 60", "sleep 0"))
    assert statuses(workspace.run()) == {"first": "cached", "slow": "done"}


def test_several_runs_at_once_do_a_stage_once(workspace: Any, statuses: Statuses) -> None:
    """Runs that share a store wait for each other instead of doing the same work twice."""
    workspace.write(SLOW.replace("sleep 60", "sleep 1"))
    workspace.run("--only", "first")
    workspace.trace()
    processes = [workspace.start("run", "spec.yaml", "--json") for _ in range(8)]
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    assert workspace.trace() == ["slow"]
    found = [statuses(json.loads(out))["slow"] for out, _ in results]
    assert sorted(found) == ["cached"] * 7 + ["done"]
    assert any("slow: waits for process" in err for _, err in results)


def test_after_a_failure_it_goes_on_with_what_was_asked_for(workspace: Any) -> None:
    """The command that goes on runs no more than the one that failed."""
    workspace.write(CHAIN.replace("echo first >> trace;", "exit 3;"))
    result = workspace.call("run", "spec.yaml", "--only", "first")
    assert result.returncode == 1
    assert "continue with: llmpipe run spec.yaml --only first\n" in result.stderr


def test_a_secret_is_nowhere(workspace: Any) -> None:
    """A command's secret reaches the command, and no file, log, output or command line."""
    canary = "canary-7f3a9c"
    workspace.write(
        """\
version: 1
name: secret
stages:
  s:
    kind: command
    run: 'echo "token is $TOKEN"; cat /proc/[0-9]*/cmdline 2> /dev/null | tr "\\0" " "; echo ${outputs.o} > ${outputs.o}'
    env: {TOKEN: "${secret:CANARY}"}
    outputs: {o: o.txt}
"""
    )
    result = workspace.call("run", "spec.yaml", "--json", CANARY=canary)
    assert result.returncode == 0, result.stderr
    assert canary not in result.stdout + result.stderr
    files = [p for p in (workspace.folder / ".llmpipe").rglob("*") if p.is_file()]
    assert len(files) > 5
    assert [p for p in files if canary.encode() in p.read_bytes()] == []
    (log,) = (p for p in files if p.name == "s.log")
    assert b"token is [redacted]" in log.read_bytes()
    assert b"llmpipe.runner.executors.forkserver" in log.read_bytes()
    assert log.read_bytes().count(b"[redacted]") == 1  # so it was in no command line


def test_a_missing_secret_is_named(workspace: Any) -> None:
    """A secret that the environment does not hold is said at its place, before anything runs."""
    workspace.write(
        workspace.spec.read_text().replace(
            "inputs: {src: ./a.txt}", "inputs: {src: ./a.txt}\n    env: {T: '${secret:NOT_SET}'}"
        )
    )
    result = workspace.call("run", "spec.yaml")
    assert result.returncode == 2
    assert "spec.yaml:9:14: stages.first.env.T: the secret NOT_SET is not set" in result.stderr
    assert "export NOT_SET=…" in result.stderr
    assert workspace.trace() == []


def test_a_file_size_limit_is_a_clear_error(workspace: Any, statuses: Statuses) -> None:
    """Where nothing more can be written there is one message and an intact store."""
    workspace.run("--only", "first")
    workspace.write(
        workspace.spec.read_text().replace(
            "sort ${inputs.i} > ${outputs.o}", "head -c 3000000 /dev/zero > ${outputs.o}"
        )
    )
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000));"
        "from llmpipe.cli.main import main; sys.exit(main(['run', 'spec.yaml', '--json']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", limited], cwd=workspace.folder, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert statuses(json.loads(result.stdout))["second"] == "failed"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 2_000_000
    assert statuses(workspace.run())["second"] == "done"


def test_too_little_room_is_said_before_anything_runs(workspace: Any) -> None:
    """What made more last time than is free now is refused at once, unless told to go on."""
    key = workspace.run()["stages"]["first"]["key"]
    workspace.trace()
    store = Store(workspace.folder / ".llmpipe")
    record = store.record(key)
    huge = msgspec.structs.replace(record.outputs["o"], size=10**18)
    store.save(msgspec.structs.replace(record, outputs={"o": huge}))
    result = workspace.call("run", "spec.yaml", "--set", "params.word=two")
    assert result.returncode == 1
    assert "made 1000000000.0 GB last time" in result.stderr
    assert "or continue with --yes" in result.stderr
    assert workspace.trace() == []
    workspace.run("--set", "params.word=two", "--yes")
    assert workspace.trace() == ["first", "second", "third"]


def test_the_room_for_stages_that_have_never_run_is_a_lower_bound(workspace: Any) -> None:
    """``doctor`` says "at least" until every stage has run once."""
    workspace.run("--only", "first")
    assert "at least 8 bytes of disk" in workspace.call("doctor", "spec.yaml").stdout
    workspace.run()
    told = workspace.call("doctor", "spec.yaml").stdout
    assert " of disk" in told
    assert "at least" not in told


def test_a_store_that_cannot_be_written_is_a_clear_error(workspace: Any) -> None:
    """A home that is a file, or whose format is newer, is named with what to do."""
    result = workspace.call("run", "spec.yaml", LLMPIPE_HOME="/dev/null/x")
    assert result.returncode == 1
    assert "cannot be written" in result.stderr
    workspace.run()
    (workspace.folder / ".llmpipe" / "format").write_text("99\n")
    result = workspace.call("run", "spec.yaml")
    assert result.returncode == 1
    assert "written in format 99" in result.stderr
    assert "Traceback" not in result.stderr


def test_runs_are_kept_and_shown(workspace: Any) -> None:
    """Every run leaves its record, its events and its logs."""
    run = workspace.run()["run"]
    folder = workspace.folder / ".llmpipe" / "runs" / run
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert events[0]["event"] == "run-started"
    assert events[-1] == {**events[-1], "v": 1, "event": "run-ended", "status": "done"}
    assert re.search(rf"{run}\s+done", workspace.call("runs").stdout)
    shown = workspace.call("runs", "show", "--json")
    assert json.loads(shown.stdout)["document"]["name"] == "chain"
    later = [workspace.run()["run"] for _ in range(4)]  # several within one second
    listed = json.loads(workspace.call("runs", "--json").stdout)
    assert [record["run"] for record in listed] == [run, *later]


def test_get_copies_an_artifact_that_can_be_written_to(workspace: Any) -> None:
    """``get`` copies what is fresh, refuses what is stale or exists, and asks which output."""
    assert workspace.call("get", "spec.yaml", "first", "x.txt").returncode == 1
    workspace.run()
    assert workspace.call("get", "spec.yaml", "first", "x.txt").returncode == 0
    with (workspace.folder / "x.txt").open("a") as copy:
        copy.write("mine now")
    again = workspace.call("get", "spec.yaml", "first.o", "x.txt")
    assert again.returncode == 2
    assert "exists already" in again.stderr
    wrong = workspace.call("get", "spec.yaml", "first.p", "y.txt")
    assert "it has: first.o" in wrong.stderr


def test_a_no_op_run_is_light(workspace: Any) -> None:
    """The second run imports nothing that is slow to import."""
    workspace.run()
    code = (
        "import sys; from llmpipe.cli.main import main; main(['run', 'spec.yaml', '--quiet']);"
        "print([m for m in ('torch', 'transformers', 'axolotl', 'datasets', 'jsonschema', 'rich',"
        " 'openai', 'numpy', 'faiss', 'jinja2') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=workspace.folder, capture_output=True, text=True
    )
    assert result.stdout.strip() == "[]", result.stderr
