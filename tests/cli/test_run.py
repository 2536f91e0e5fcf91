"""Options of ``run`` that would do nothing are refused, and its output need not be read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest


@pytest.mark.parametrize("option", ["--from", "--force", "--keep", "--resample"])
def test_an_option_for_a_stage_outside_only_is_refused(workspace: Any, option: str) -> None:
    """It would be forgotten without a word; for a stage that --only takes in it works."""
    told = workspace.call("run", "spec.yaml", "--only", "second", option, "third")
    assert told.returncode == 2
    assert f"{option} third does nothing with --only second" in told.stderr
    assert not (workspace.folder / "trace").exists()


def test_an_option_for_a_stage_that_only_takes_in_is_heeded(workspace: Any) -> None:
    """What the stages named need is among them."""
    workspace.run()
    workspace.trace()
    workspace.run("--only", "second", "--force", "first")
    assert workspace.trace() == ["first"]
    workspace.run("--only", "second", "--from", "first")
    assert workspace.trace() == ["first", "second"]


def test_only_what_is_drawn_can_be_drawn_anew(workspace: Any) -> None:
    """A command journals no replies, and the hint says how to run it again."""
    told = workspace.call("run", "spec.yaml", "--resample", "second")
    assert told.returncode == 2
    assert "--resample second: a stage of kind command journals no replies" in told.stderr
    assert "--force second" in told.stderr
    assert not (workspace.folder / "trace").exists()


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_run_that_nobody_reads_ends_as_it_would(
    workspace: Any, options: list[str], failing: bool
) -> None:
    """Its exit code is its own, and its record and lock are written."""
    if failing:
        workspace.write(workspace.spec.read_text().replace("echo third", "false; exit 3; echo"))
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "llmpipe", "run", "spec.yaml", *options]
    done = subprocess.run(command, cwd=workspace.folder, stdout=writer, stderr=writer, timeout=120)
    os.close(writer)
    assert done.returncode == int(failing)
    (record,) = workspace.folder.glob(".llmpipe/runs/*/run.json")
    assert json.loads(record.read_bytes())["status"] == ("failed" if failing else "done")
    assert record.with_name("report.html").exists()
    assert list(workspace.folder.glob("*.lock*"))
