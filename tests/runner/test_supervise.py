"""What a stage says and does while it runs: secrets, long lines, changing inputs, children, stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import holds_text, wait_for

from llmpipe.runner.redact import Redactor

ONE = """\
version: 1
name: one
stages:
  s: {kind: command, run: '%s', inputs: {i: ./a.txt}, outputs: {o: o.txt}%s}
"""


def test_an_input_that_changes_meanwhile_is_no_cached_lie(workspace: Any) -> None:
    """What was made of other bytes than the key says is not stored under it."""
    data = workspace.folder / "a.txt"
    workspace.write(ONE % ("touch began; sleep 1; cat ${inputs.i} > ${outputs.o}", ""))
    process = workspace.start("run", "spec.yaml", "--json")
    wait_for((workspace.folder / "began").exists)
    before = data.read_text()
    data.write_text("other\n")
    out, _ = process.communicate(timeout=30)
    error = json.loads(out)["stages"]["s"]["error"]
    assert error["message"] == "./a.txt changed while the stage waited or ran"
    data.write_text(before)
    assert workspace.plan()["s"]["status"] == "run"
    path = Path(workspace.run()["stages"]["s"]["outputs"]["o"])
    assert path.read_text() == before


@pytest.mark.parametrize("value", ["null", "event", "true", "1234", 'a"b\\c', "line one\nline two"])
def test_a_secret_of_any_form_is_taken_out_and_breaks_nothing(workspace: Any, value: str) -> None:
    """A secret that looks like a part of our own messages is nothing but a secret."""
    show = "printenv KEY; cat ${inputs.i} > ${outputs.o}"
    workspace.write(ONE % (show, ', env: {KEY: "${secret:K}"}'))
    result = workspace.call("run", "spec.yaml", "--json", K=value, OPENAI_API_KEY=value)
    assert result.returncode == 0, result.stderr
    (log,) = (workspace.folder / ".llmpipe" / "runs").glob("*/s.log")
    assert "[redacted]" in log.read_text()
    assert not any(line in log.read_text() for line in value.splitlines())


@given(st.text(min_size=4, max_size=20), st.text(max_size=10), st.text(max_size=10))
def test_no_text_keeps_a_secret(secret: str, before: str, after: str) -> None:
    """Wherever it stands in an answer, in a list or a mapping, a secret is gone; figures stay."""
    cleaned = Redactor([secret]).in_json({"a": [before + secret + after, 4], "b": None})
    assert cleaned["a"][1] == 4
    assert secret not in cleaned["a"][0].replace("[redacted]", "\0")


def test_a_line_without_end_is_no_burden(workspace: Any) -> None:
    """Sixty megabytes on one line take a moment, and the secret in their middle is taken out."""
    half = 'head -c 30000000 /dev/zero | tr "\\0" x'
    show = f"{half}; printenv KEY | tr -d [:space:]; {half}; cat ${{inputs.i}} > ${{outputs.o}}"
    workspace.write(ONE % (show, ', env: {KEY: "${secret:K}"}'))
    begun = time.monotonic()
    result = workspace.call("run", "spec.yaml", K="canary-51")
    assert result.returncode == 0, result.stderr
    assert time.monotonic() - begun < 20
    (log,) = (workspace.folder / ".llmpipe" / "runs").glob("*/s.log")
    assert b"canary" not in log.read_bytes()
    assert b"[redacted]" in log.read_bytes()


def test_modules_beside_the_spec_are_none_of_ours(workspace: Any) -> None:
    """A file of the user's that has the name of one of Python's own is not imported."""
    (workspace.folder / "selectors.py").write_text("raise RuntimeError('not me')\n")
    (workspace.folder / "datasets").mkdir()
    llmpipe = Path(sys.executable).with_name("llmpipe")
    result = subprocess.run(
        [llmpipe, "run", "spec.yaml"], cwd=workspace.folder, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def test_waiting_for_another_run_does_not_count_as_time(workspace: Any) -> None:
    """A timeout is the stage's own: who waits for the lock of another run is not stopped by it."""
    text = ONE % ("touch began; sleep 3; cat ${inputs.i} > ${outputs.o}", "")
    workspace.write(text)
    first = workspace.start("run", "spec.yaml")
    wait_for((workspace.folder / "began").exists)
    workspace.write(text.replace("o.txt}}", "o.txt}, timeout: 1}"))
    assert workspace.run()["stages"]["s"]["status"] == "cached"
    first.communicate()


def test_ctrl_c_waits_for_what_is_being_stored(workspace: Any) -> None:
    """What a stage has finished is not lost because its bytes take long to hash."""
    workspace.write(ONE % ("truncate -s 4G ${outputs.o}; touch began", ""))
    process = workspace.start("run", "spec.yaml")
    wait_for((workspace.folder / "began").exists)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "✓ s: done" in err
    assert "is being stored; Ctrl-C again stops that, too" in err
    assert workspace.plan()["s"]["status"] == "cached"


def test_a_stage_that_takes_long_to_stop_keeps_no_other_waiting(
    workspace: Any, all_cores: None
) -> None:
    """While one that is over its time gets its seconds to end, others end and start."""
    workspace.write("""\
version: 1
name: stubborn
stages:
  stubborn: {kind: command, run: "trap '' INT TERM; sleep 60", outputs: {o: o.txt}, timeout: 1}
  short: {kind: command, run: "sleep 2; echo x > ${outputs.o}", outputs: {o: o.txt}}
  next: {kind: command, run: "cat ${inputs.i} > ${outputs.o}", inputs: {i: short}, outputs: {o: o.txt}}
""")
    workspace.run("-k", "-j", "2", code=1)
    (path,) = (workspace.folder / ".llmpipe").glob("runs/*/run.json")
    stages = json.loads(path.read_text())["stages"]
    assert stages["stubborn"]["error"]["message"] == "it ran longer than its timeout of 1 s"
    end = stages["stubborn"]["started"] + stages["stubborn"]["seconds"]
    assert 4 < stages["stubborn"]["seconds"] < 20
    assert stages["next"]["status"] == "done"
    assert stages["next"]["started"] < end - 0.5


def test_children_in_sessions_of_their_own_end_as_well(workspace: Any) -> None:
    """Ctrl-C leaves nothing running, not even what a program has started in another session."""
    workspace.write(ONE % ("setsid sleep 321 & echo $! > pid; sleep 300", ""))
    process = workspace.start("run", "spec.yaml")
    pid = workspace.folder / "pid"
    wait_for(lambda: holds_text(pid))
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert "sleep 321" not in listed


def test_a_reader_that_goes_away_does_not_end_the_run(workspace: Any) -> None:
    """`llmpipe run 2>&1 | head -1` runs to its end."""
    command = f"{sys.executable} -m llmpipe run spec.yaml 2>&1 | head -1"
    subprocess.run(command, shell=True, cwd=workspace.folder, check=True, stdout=subprocess.DEVNULL)
    wait_for(lambda: list((workspace.folder / ".llmpipe/runs").glob("*/run.json")))
    assert {plan["status"] for plan in workspace.plan().values()} == {"cached"}
    assert os.environ.get("LLMPIPE_WORKER") is None
