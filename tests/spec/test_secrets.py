"""Secrets stand in a spec by name alone, and in clear nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

CANARY = "sk-canary-0123456789"
SPEC = """\
version: 1
name: secrets
params: {key: PARAM}
stages:
  more:
    kind: generate
    method: evol-instruct
    seeds: ./a.jsonl
    count: 2
    teacher: {engine: openai, model: m, base_url: "http://127.0.0.1:9/v1", api_key: "KEY"}
  say: {kind: command, run: "env > ${outputs.o}", outputs: {o: o.txt}, env: {MODE: fast, HF_TOKEN: TOKEN}}
"""


def written(folder: Path) -> bytes:
    """Return all that a run has written, but for the spec itself."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "spec.yaml"]
    return b"".join(path.read_bytes() for path in files)


def spec(key: str = "${secret:K}", token: str = "${secret:T}", param: str = "x") -> str:
    """Write the spec with some keys."""
    return SPEC.replace("KEY", key).replace(": TOKEN", f": {token!r}").replace("PARAM", param)


@pytest.mark.parametrize(
    ("text", "options", "field"),
    [
        (spec(key=CANARY), [], "stages.more.teacher.api_key"),
        (spec(token=CANARY), [], "stages.say.env.HF_TOKEN"),
        (spec(key="${params.key}", param=CANARY), [], "stages.more.teacher.api_key"),
        (spec(key="${env:CANARY}"), [], "stages.more.teacher.api_key"),
        (spec(), ["--set", f"stages.more.teacher.api_key={CANARY}"], "stages.more.teacher.api_key"),
    ],
)
def test_a_secret_in_clear_is_refused_and_not_repeated(
    workspace: Any, text: str, options: list[str], field: str
) -> None:
    """It was accepted, and written into the record, the events and the report of the run."""
    workspace.write(text)
    (workspace.folder / "a.jsonl").write_text('{"instruction": "i", "output": "o"}\n')
    found = workspace.call("run", "spec.yaml", *options, CANARY=CANARY)
    assert found.returncode == 2
    assert f"{field}: a secret in clear" in found.stderr
    assert "write ${secret:NAME}" in found.stderr
    assert CANARY not in found.stdout + found.stderr
    assert CANARY.encode() not in written(workspace.folder)


def test_a_secret_by_name_is_written_nowhere(workspace: Any) -> None:
    """Only what the stage itself makes of its variables holds it."""
    workspace.write(spec().replace("env > ${outputs.o}", "echo $HF_TOKEN; echo > ${outputs.o}"))
    (workspace.folder / "a.jsonl").write_text('{"instruction": "i", "output": "o"}\n')
    found = workspace.call("run", "spec.yaml", "--only", "say", T=CANARY, K=CANARY)
    assert found.returncode == 0
    assert CANARY not in found.stdout + found.stderr
    assert CANARY.encode() not in written(workspace.folder)
