"""Bytes that are not UTF-8, from wherever a system hands them over: told in a line, no traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from workspace import Workspace

BYTES = os.fsdecode(b"caf\xe9")
SHOWN = "caf\N{REPLACEMENT CHARACTER}"

SPEC = """\
version: 1
name: bytes
params: {word: one}
stages:
  one: {kind: command, run: "echo ${params.word} > ${outputs.o}", outputs: {o: o.txt}}
"""


def refusal(workspace: Workspace, *arguments: str, code: int = 2, **env: str) -> str:
    """Return what a command that is refused says, on both streams."""
    found = workspace.call(*arguments, **env)
    said = found.stdout + found.stderr
    assert "Traceback" not in said
    assert "UnicodeEncodeError" not in said
    assert found.returncode == code, said
    return said


@pytest.mark.parametrize("command", ["run", "plan", "validate", "graph"])
def test_a_variable_that_a_spec_names(workspace: Workspace, command: str) -> None:
    """The place that names it is shown."""
    workspace.write(SPEC.replace("word: one", 'word: "${env:WORD}"'))
    said = refusal(workspace, command, "spec.yaml", WORD=BYTES)
    assert said.startswith("spec.yaml:3:16: ${env:WORD}: the variable WORD is not UTF-8 text")


@pytest.mark.parametrize("setting", [f"params.word={BYTES}", f"params.{BYTES}=1", BYTES])
def test_a_setting(workspace: Workspace, setting: str) -> None:
    """Its value as well as its path."""
    workspace.write(SPEC)
    said = refusal(workspace, "plan", "spec.yaml", "--set", setting)
    assert said.startswith(f"--set {setting}: not UTF-8 text".replace(BYTES, SHOWN))


@pytest.mark.parametrize("command", ["run", "plan", "validate", "graph", "push", "gc"])
def test_the_name_of_the_spec_or_its_folder(
    workspace: Workspace, tmp_path: Path, command: str
) -> None:
    """What is kept of a spec names it by its path."""
    folder = tmp_path / BYTES
    folder.mkdir()
    (folder / "spec.yaml").write_text(SPEC)
    named = workspace.folder / f"{BYTES}.yaml"
    named.write_text(SPEC)
    inside = Workspace(folder)
    for said in (
        refusal(workspace, command, named.name),
        refusal(workspace, command, str(folder / "spec.yaml")),
        refusal(inside, command, "spec.yaml"),
    ):
        assert SHOWN in said.splitlines()[0]
        assert "the path is not UTF-8 text" in said.splitlines()[0]
        assert "rename" in said.splitlines()[1]


def test_the_store(workspace: Workspace) -> None:
    """LLMPIPE_HOME is refused as a folder would be; HOME alone is not."""
    workspace.write(SPEC)
    home = str(workspace.folder / BYTES)
    assert "the path is not UTF-8 text" in refusal(workspace, "run", "spec.yaml", LLMPIPE_HOME=home)
    assert "the path is not UTF-8 text" in refusal(
        workspace, "run", "spec.yaml", HOME=home, LLMPIPE_HOME="~/store"
    )
    workspace.run(HOME=home)
    workspace.call("run", "spec.yaml", HOME=home)
    assert "1 cached" in workspace.call("run", "spec.yaml", HOME=home).stderr


@pytest.mark.parametrize("reference", ["./link", "~/data.txt", "./link/data.txt"])
def test_where_a_reference_leads(workspace: Workspace, reference: str) -> None:
    """A home, or what a link leads to."""
    home = workspace.folder / "homes" / BYTES
    home.mkdir(parents=True)
    (home / "data.txt").write_text("data")
    (workspace.folder / "link").symlink_to(home)
    workspace.write(SPEC.replace("outputs: {", f"inputs: {{i: {reference}}}, outputs: {{"))
    said = refusal(workspace, "run", "spec.yaml", HOME=str(home))
    assert f"stages.one.inputs.i: {reference} leads to " in said
    assert SHOWN in said
    assert "not UTF-8 text" in said


def test_a_base_in_such_a_home(workspace: Workspace) -> None:
    """A spec may extend one that lies there: nothing is kept of its path."""
    home = workspace.folder / BYTES
    home.mkdir()
    (home / "base.yaml").write_text(SPEC)
    workspace.write("version: 1\nname: bytes\nextends: ~/base.yaml\nstages: {}\n")
    for _ in range(2):
        found = workspace.call("run", "spec.yaml", HOME=str(home))
        assert (found.returncode, "Traceback" in found.stderr) == (0, False), found.stderr


def test_a_file_that_a_stage_makes(workspace: Workspace) -> None:
    """The stage fails before anything of it is kept, and names the file."""
    write = "mkdir ${outputs.o}; echo 1 > ${outputs.o}/$(printf 'caf\\\\351')"
    workspace.write(SPEC.replace("echo ${params.word} > ${outputs.o}", write))
    found = workspace.call("run", "spec.yaml")
    assert found.returncode == 1
    assert f"the output 'o' holds a file whose name is not UTF-8 text: {SHOWN}" in found.stderr
    assert "fault in llmpipe" not in found.stderr


def test_an_input_folder_with_such_a_file(workspace: Workspace) -> None:
    """A command takes it as it is, and later runs find it unchanged."""
    (workspace.folder / "in").mkdir()
    (workspace.folder / "in" / BYTES).write_text("data")
    workspace.write(SPEC.replace("outputs: {", "inputs: {i: ./in}, outputs: {"))
    assert workspace.run()["stages"]["one"]["status"] == "done"
    assert workspace.run()["stages"]["one"]["status"] == "cached"


def test_the_value_of_a_secret(workspace: Workspace) -> None:
    """It reaches the command as it is, and no log: there its bytes were shown as unknown."""
    stage = 'env: {KEY: "${secret:KEY}"}, outputs: {'
    text = SPEC.replace("echo ${params.word}", "echo $KEY; echo $KEY >&2; echo $KEY")
    workspace.write(text.replace("outputs: {", stage))
    secret = f"{BYTES}-is-closed"
    stages = workspace.run(KEY=secret)["stages"]
    assert Path(stages["one"]["outputs"]["o"]).read_bytes() == os.fsencode(secret) + b"\n"
    for log in workspace.folder.glob(".llmpipe/runs/*/*"):
        assert "is-closed" not in log.read_text("utf-8", errors="replace"), log


def test_whatever_else_meets_them(workspace: Workspace) -> None:
    """A text that no other check looks at ends in a message, too."""
    workspace.write(SPEC.replace("outputs: {", "resources: {gpus: 1}, outputs: {"))
    said = refusal(workspace, "run", "spec.yaml", CUDA_VISIBLE_DEVICES=f"GPU-{BYTES}")
    assert "'GPU-caf\\udce9' is not UTF-8 text" in said
