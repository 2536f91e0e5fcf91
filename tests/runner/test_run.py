"""Running for real, through the command line: freshness, failure, secrets, several runs at once."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workspace import CHAIN, SLOW

Statuses = Callable[[dict[str, Any]], dict[str, str]]


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
