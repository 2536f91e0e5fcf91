"""Secrets stand in a spec by name alone, and in clear nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmpipe.errors import SpecError
from llmpipe.spec.read import read_spec

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


COMMAND = """\
version: 1
name: x
stages:
  c: {kind: command, run: "true > ${outputs.o}", outputs: {o: o.txt}, env: {NAME: VALUE}}
"""


def problems(folder: Path, text: str) -> list[str]:
    """Return what is wrong with a spec."""
    (folder / "spec.yaml").write_text(text)
    try:
        read_spec(folder / "spec.yaml")
    except SpecError as error:
        return [problem.message for problem in error.problems]
    return []


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY", "openai_api_key", "apiKey", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "hf_token",
        "HUGGING_FACE_HUB_TOKEN", "GITHUB_TOKEN", "WANDB_API_KEY", "AUTH_TOKEN", "ACCESS_TOKEN",
        "CLIENT_SECRET", "DB_PASSWORD", "db_passwd", "DB_PASS", "GITHUB_PAT", "PASSWORD",
    ],
)  # fmt: skip
def test_a_variable_that_is_named_like_a_secret_is_one(tmp_path: Path, name: str) -> None:
    """However it is written."""
    text = COMMAND.replace("NAME", name)
    (told,) = problems(tmp_path, text.replace("VALUE", "hunter2-hunter2"))
    assert told.startswith(f"stages.c.env.{name}: a secret in clear")
    assert problems(tmp_path, text.replace("VALUE", "'${secret:X}'")) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EOS_TOKEN", "</s>"),
        ("EOS_TOKEN", "<|end_of_text|>"),
        ("MAX_TOKEN", "'100000000'"),
        ("WANDB_API_KEY", "''"),
        ("OPENAI_API_KEY", "EMPTY"),
        ("BYPASS", "everything"),
        ("SPAT", "everything"),
        ("PASS_NAME", "everything"),
        ("SORT_KEY", "created_at"),
    ],
)
def test_what_is_no_secret_may_stand_in_clear(tmp_path: Path, name: str, value: str) -> None:
    """Special tokens, and what stands in for a key where none is needed, were refused."""
    assert problems(tmp_path, COMMAND.replace("NAME", name).replace("VALUE", value)) == []


@pytest.mark.parametrize("key", ["none", "EMPTY", "''"])
def test_an_endpoint_that_needs_no_key_may_have_a_placeholder(tmp_path: Path, key: str) -> None:
    """Servers of one's own take any."""
    (tmp_path / "a.jsonl").write_text("{}")
    assert problems(tmp_path, spec().replace('"${secret:K}"', key)) == []
