"""What a person sees of a run: redrawn on a terminal, lines in a log, nothing but failures on demand."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from typing import Any

SPEC = """\
version: 1
name: view
stages:
  slow: {kind: command, run: "for i in 1 2 3 4 5; do echo [at step $i]; sleep 0.4; done; echo > ${outputs.o}", outputs: {o: o.txt}}
"""
COLORS = re.compile(r"\x1b\[(?:\d+;)*3[0-9]")


def on_a_terminal(workspace: Any, *arguments: str, **env: str) -> str:
    """Run in a pseudo-terminal of 140 columns and give all that was written to it."""
    head, tail = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "llmpipe", "run", "spec.yaml", *arguments],
        cwd=workspace.folder,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "140", "LINES": "40", **env},
        stdin=tail,
        stdout=subprocess.PIPE,
        stderr=tail,
    )
    os.close(tail)
    seen = b""
    while True:
        try:
            seen += os.read(head, 1 << 16)
        except OSError:  # the other end is closed
            break
    os.close(head)
    assert process.wait() == 0
    return seen.decode()


def test_a_terminal_shows_what_is_running(workspace: Any) -> None:
    """The stage, its last log line and its memory are redrawn; what ended stays as a line."""
    workspace.write(SPEC)
    seen = on_a_terminal(workspace)
    assert "[at step 3]" in seen
    assert re.search(r"\d MB", seen)
    assert "✓ slow: done in" in seen
    assert COLORS.search(seen)


def test_a_big_input_is_hashed_in_sight(workspace: Any) -> None:
    """A file that takes a second to hash is named with how far it is; once hashed, it is not again."""
    (workspace.folder / "big").touch()
    os.truncate(workspace.folder / "big", 1 << 30)
    spec = SPEC.replace("0.4", "0").replace("outputs:", "inputs: {big: ./big}, outputs:")
    workspace.write(spec)
    assert re.search(r"hashing big: \d+ %", on_a_terminal(workspace))
    assert "hashing" not in on_a_terminal(workspace)


def test_no_color_and_plain_are_kept(workspace: Any) -> None:
    """NO_COLOR takes the colors away; --plain redraws nothing."""
    workspace.write(SPEC.replace("0.4", "0.1"))
    assert not COLORS.search(on_a_terminal(workspace, NO_COLOR="1"))
    seen = on_a_terminal(workspace, "--plain", "--force", "slow")
    assert "\x1b" not in seen
    assert "✓ slow: done in" in seen


def test_quiet_says_failures_only(workspace: Any) -> None:
    """--quiet writes nothing for a run that is good, and why for one that is not."""
    workspace.write(SPEC.replace("0.4", "0"))
    good = workspace.call("run", "spec.yaml", "--quiet")
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    workspace.write(SPEC.replace("0.4", "0").replace("echo >", "false >"))
    bad = workspace.call("run", "spec.yaml", "--quiet")
    assert bad.returncode == 1
    assert bad.stderr.startswith("stage slow failed: the command ended with exit status 1")


def test_the_peak_of_memory_is_recorded(workspace: Any) -> None:
    """A stage that holds 200 MB for a while is recorded with that much."""
    hold = (
        "python -c 'x = bytearray(200_000_000); import time; time.sleep(2.5)'; echo > ${outputs.o}"
    )
    workspace.write(SPEC.replace(SPEC.partition('run: "')[2].partition('", out')[0], hold))
    workspace.run()
    record = json.loads(workspace.call("runs", "show", "--json").stdout)
    assert 200e6 < record["stages"]["slow"]["memory"] < 600e6
