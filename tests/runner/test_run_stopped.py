"""Runs that are stopped or lack room: timeout, Ctrl-C, kill -9, a full disk."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from processes import holds_text, wait_for
from workspace import SLOW

from llmpipe.runner.store import Store

Statuses = Callable[[dict[str, Any]], dict[str, str]]


def alive(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


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
