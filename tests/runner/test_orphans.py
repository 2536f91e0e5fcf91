"""A worker whose run was killed goes on; one that cannot finish is named, with how to end it."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

from processes import holds_text, kill, run_processes, wait_for
from workspace import Workspace

STUCK = """\
version: 1
name: stuck
stages:
  slow: {kind: command, run: "echo $$ > pid; setsid sleep 987 & sleep 987; echo x > ${outputs.o}", outputs: {o: o.txt}}
"""


def _orphaned(workspace: Workspace) -> int:
    """Kill a run whose stage is stuck; return the number of the worker that lives on."""
    workspace.write(STUCK)
    process = workspace.start("run", "spec.yaml")
    wait_for(lambda: holds_text(workspace.folder / "pid"))
    _end(process)
    return os.getsid(int((workspace.folder / "pid").read_text()))


def _end(process: Any) -> None:
    """Kill a run; its worker, which holds what it writes to, may live on."""
    process.kill()
    process.wait()
    for stream in (process.stdout, process.stderr):
        stream.close()


def _left(workspace: Workspace) -> list[int]:
    return run_processes(workspace.folder / ".llmpipe")


def test_gc_names_the_worker_that_holds_the_store_and_how_to_end_it(workspace: Workspace) -> None:
    """Process, stage, since when, and a command that ends it and all that it started."""
    pid = _orphaned(workspace)
    try:
        refused = workspace.call("gc", "spec.yaml")
        assert refused.returncode == 1
        assert re.search(
            rf"process {pid}, which is making stage 'slow' since [\d-]+ [\d:]+ \(\d+\.\d s ago\); "
            r"its run \S+ was killed",
            refused.stderr,
        )
        (command,) = re.findall(r"end it: (kill -- -\d+)", refused.stderr)
        subprocess.run(["bash", "-c", command], check=True)
        wait_for(lambda: not _left(workspace), 20)
        assert workspace.call("gc", "spec.yaml").returncode == 0
    finally:
        kill(_left(workspace))


def test_a_run_that_waits_for_an_orphan_says_so_even_quietly(workspace: Workspace) -> None:
    """It goes on once the stuck worker is ended as it says."""
    pid = _orphaned(workspace)
    try:
        process: Any = workspace.start("run", "spec.yaml", "--quiet")
        said = process.stderr.readline()
        assert said.startswith(f"  slow: waits for process {pid}, which is making stage 'slow'")
        command = process.stderr.readline().partition("end it: ")[2].partition("    (")[0]
        (workspace.folder / "pid").unlink()
        subprocess.run(["bash", "-c", command], check=True)
        wait_for(lambda: holds_text(workspace.folder / "pid"))
        assert process.poll() is None
    finally:
        kill(_left(workspace))
        _end(process)


def test_a_run_with_another_key_warns_of_an_orphan(workspace: Workspace) -> None:
    """It need not wait, but is told what else is at work on this machine."""
    pid = _orphaned(workspace)
    try:
        workspace.write(STUCK.replace("sleep 987", "true"))
        result = workspace.call("run", "spec.yaml")
        assert result.returncode == 0
        assert f"warning: an earlier run's process {pid}, which is making" in result.stderr
    finally:
        kill(_left(workspace))


def test_gc_names_a_run_that_goes_on(workspace: Workspace) -> None:
    """A healthy run is named by its command line, without advice to kill it."""
    workspace.write(STUCK)
    setting = "stages.slow.env.TOKEN=sk-secret"
    process: Any = workspace.start("run", "spec.yaml", "--set", setting)
    try:
        wait_for(lambda: holds_text(workspace.folder / "pid"))
        refused = workspace.call("gc", "spec.yaml").stderr
        told = f"process {process.pid}: llmpipe run spec.yaml --set stages.slow.env.TOKEN=…"
        assert told in refused
        assert "sk-secret" not in refused
        assert "which is making stage 'slow'" in refused
        assert "kill" not in refused
    finally:
        kill(_left(workspace))
        _end(process)
