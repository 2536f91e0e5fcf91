"""What a plan says: the one value that changed, in one readable line."""

from __future__ import annotations

import json
from typing import Any

SPEC = """\
version: 1
name: sources
stages:
  dataset:
    kind: format
    sources:
      - data: ./a.jsonl
      - data: ./b.jsonl
        repeat: 2
    to: messages
"""


def test_planning_needs_no_place_to_write(workspace: Any) -> None:
    """Where no store can be made, the plan is there all the same, and a run says what is wrong."""
    planned = workspace.call("plan", "spec.yaml", LLMPIPE_HOME="/proc/nowhere")
    assert (planned.returncode, planned.stderr) == (0, "")
    assert "3 to run" in planned.stdout
    ran = workspace.call("run", "spec.yaml", LLMPIPE_HOME="/proc/nowhere")
    assert ran.returncode == 1
    assert "/proc/nowhere cannot be written" in ran.stderr


def test_a_change_inside_a_list_is_named_by_its_place(workspace: Any) -> None:
    """Not the whole list before and after, but the entry, with what a person wrote in it."""
    for name in "ab":
        row = {"instruction": f"q{name}", "output": "an answer"}
        (workspace.folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    workspace.write(SPEC)
    workspace.run()
    workspace.write(SPEC.replace("repeat: 2", "repeat: 3"))
    assert "because sources.1.repeat: 2 → 3\n" in workspace.call("plan", "spec.yaml").stdout
    workspace.write(SPEC.replace("      - data: ./b.jsonl\n        repeat: 2\n", ""))
    told = workspace.call("plan", "spec.yaml").stdout
    assert "because sources.1: {data: a reference, random_seed: 0, repeat: 2} → nothing\n" in told
