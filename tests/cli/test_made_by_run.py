"""What a run made can be taken though the spec, as it stands, would make something else."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from workspace import Workspace

from llmpipe.cli import serve
from llmpipe.cli.main import main
from llmpipe.contracts import Endpoint

SPEC = """\
version: 1
name: things
params: {steps: 60}
profiles: {big: {params: {steps: 600}}}
stages:
  sft: {kind: command, run: "echo ${params.steps} steps > ${outputs.o}", outputs: {o: model.gguf}}
  chat: {kind: serve, model: sft}
"""


@pytest.fixture
def folder(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the spec, nothing run; commands are called from within it."""
    workspace.write(SPEC)
    monkeypatch.chdir(workspace.folder)
    return workspace.folder


def _run(*arguments: str) -> None:
    assert main(["run", "spec.yaml", "--quiet", "--only", "sft", *arguments]) == 0


def _complaint(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == code
    return capsys.readouterr().err


def _got(path: str, *arguments: str) -> str:
    assert main(["get", "spec.yaml", "sft", path, *arguments]) == 0
    return Path(path).read_text()


def _served(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Return what would be served: nothing is."""
    found: list[Path] = []

    @contextmanager
    def serve_model(model: Path, *_: Any, **__: Any) -> Iterator[Endpoint]:
        found.append(model)
        ended = Event()
        ended.set()
        yield Endpoint("http://127.0.0.1:1", ended=ended)

    monkeypatch.setattr("llmpipe.web.server.serve_model", serve_model)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert serve.main(["spec.yaml", *arguments]) == 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return found[0].read_text()


def test_what_was_made_with_settings_is_named_and_served(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says by which run and with which settings, and how to serve just that."""
    _run("--set", "params.steps=12")
    wanted = {"chat": ["serve", "spec.yaml"], "sft": ["get", "spec.yaml", "sft", "x"]}
    for stage, command in wanted.items():
        told = _complaint(capsys, *command)
        assert "sft is not up to date in the store" in told
        (run,) = re.findall(r"run (\S+) has it, with --set params.steps=12 \(made \d{4}-", told)
        assert f"to take that: llmpipe {' '.join(command)} --run {run}\n" in told
        assert f"make it first: llmpipe run spec.yaml --only {stage}\n" in told
    assert _served(monkeypatch, "--run", run) == "12 steps\n"
    assert _served(monkeypatch, "--run", "last") == "12 steps\n"
    assert _got("x", "--run", run[:-1]) == "12 steps\n"


def test_the_last_run_is_found_by_whatever_path_the_spec_was_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one file, however one gets there."""
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")
    assert (
        main(["run", "../spec.yaml", "--quiet", "--only", "sft", "--set", "params.steps=12"]) == 0
    )
    monkeypatch.chdir(folder)
    assert _got("x", "--run", "last") == "12 steps\n"


def test_the_advice_keeps_what_was_laid_over_the_spec(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To make it first is to make it with the same profiles and settings."""
    told = _complaint(capsys, "get", "spec.yaml", "sft", "x", "--profile", "big")
    assert "make it first: llmpipe run spec.yaml --profile big --only sft" in told
    assert "to take that" not in told


def test_each_run_is_taken_as_it_was(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Under its own profiles; also where the spec has changed since, which is said."""
    _run("--profile", "big")
    _run()
    big, small = sorted(path.name for path in (folder / ".llmpipe" / "runs").iterdir())
    assert _got("big", "--run", big) == "600 steps\n"
    spec = folder / "spec.yaml"
    spec.write_text(spec.read_text().replace("steps >", "steps done >"))
    capsys.readouterr()
    assert _got("small", "--run", small) == "60 steps\n"
    told = capsys.readouterr().err
    assert "warning: not as the spec says now: sft: run: echo 60 steps >" in told
    assert "by the spec as it was then" in _complaint(capsys, "get", "spec.yaml", "sft", "x")


def test_mistakes_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No run, one of no such name, of another spec, or beside settings; and what is gone."""
    get = ["get", "spec.yaml", "sft", "x", "--run"]
    assert "nothing has run yet" in _complaint(capsys, *get, "last", code=2)
    _run()
    (run,) = (folder / ".llmpipe" / "runs").iterdir()
    assert "there is no run '1999'" in _complaint(capsys, *get, "1999", code=2)
    told = _complaint(capsys, *get, "last", "--set", "params.steps=3", code=2)
    assert "leave out --profile and --set" in told
    (folder / "other.yaml").write_text(SPEC.replace("things", "others"))
    told = _complaint(capsys, "get", "other.yaml", "sft", "x", "--run", run.name, code=2)
    assert f"run {run.name} is one of" in told
    for record in (folder / ".llmpipe" / "store" / "keys").iterdir():
        record.unlink()
    told = _complaint(capsys, *get, "last")
    assert f"run {run.name}: sft is no longer in the store" in told


def test_what_a_run_did_not_make_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that failed there names how it ended, and another run that has it."""
    _run()
    spec = folder / "spec.yaml"
    text = spec.read_text()
    spec.write_text(text.replace("echo $", "false; exit 3; echo $"))
    assert main(["run", "spec.yaml", "--quiet", "--only", "sft"]) == 1
    spec.write_text(text)
    told = _complaint(capsys, "get", "spec.yaml", "sft", "x", "--run", "last")
    assert "sft was not made by it (failed)" in told
    assert "to take that: llmpipe get spec.yaml sft x --run " in told
