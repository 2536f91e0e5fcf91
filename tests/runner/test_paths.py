"""Nothing is written outside the project, and no artifact reaches outside itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

HOSTILE = """\
version: 1
name: hostile
stages:
  a:
    kind: command
    run: "echo ${params.x} > ${outputs.o}"
    outputs: {o: o.txt}
    matrix:
      description: ["../../../up", "/abs", "~", "a b\\nc", "..", "'; touch ../../../oops; '", "$(touch ../oops)"]
  b: {kind: command, run: "cat ${inputs.i} > ${outputs.o}", inputs: {i: a}, outputs: {o: o.txt}}
"""


def test_hostile_names_stay_inside_the_project(workspace: Any, tmp_path: Path) -> None:
    """Points of a sweep whose values look like paths or commands are only names."""
    project = tmp_path / "one" / "two"
    project.mkdir(parents=True)
    workspace.folder, workspace.spec = project, project / "spec.yaml"
    workspace.write(HOSTILE.replace("${params.x}", "x"))
    assert len(workspace.run()["stages"]) == 14
    assert {path.name for path in project.iterdir()} == {
        "spec.yaml",
        ".llmpipe",
        "hostile.lock.yaml",
    }
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", "spec.yaml", "one"}
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["two"]


@pytest.mark.parametrize("output", ["../o.txt", "/tmp/o.txt", "a/b", "", ".", ".."])
def test_an_output_is_a_plain_name(workspace: Any, output: str) -> None:
    """A command's output cannot be named so that it lies elsewhere."""
    workspace.write(workspace.spec.read_text().replace("{o: o.txt}", f'{{o: "{output}"}}'))
    result = workspace.call("run", "spec.yaml")
    assert result.returncode == 2
    assert f"a plain file name is needed, not {output!r}" in result.stderr


@pytest.mark.parametrize(
    "make",
    [
        "ln -s /etc/hostname ${outputs.o}",
        "mkdir ${outputs.o}; ln -s /etc ${outputs.o}/etc",
        "mkdir ${outputs.o}; ln -s ../../../../../a.txt ${outputs.o}/x",
    ],
)
def test_an_artifact_does_not_reach_out_of_itself(workspace: Any, make: str) -> None:
    """A link that leads elsewhere would let an artifact change after it was made: it is refused."""
    workspace.write(workspace.spec.read_text().replace("sort ${inputs.i} > ${outputs.o}", make))
    error = workspace.run(code=1)["stages"]["second"]["error"]["message"]
    assert "leads out of it" in error or "is outside" in error


def test_a_link_within_an_artifact_is_kept(workspace: Any) -> None:
    """A folder whose links stay inside it is an artifact like any other."""
    inside = "mkdir ${outputs.o}; echo 1 > ${outputs.o}/x; ln -s x ${outputs.o}/y"
    text = workspace.spec.read_text().replace("sort ${inputs.i} > ${outputs.o}", inside)
    workspace.write(text.replace("wc -l < ${inputs.i}", "cat ${inputs.i}/y"))
    result = workspace.run()
    assert Path(result["stages"]["third"]["outputs"]["o"]).read_text() == "1\n"


def test_two_outputs_are_two_files(workspace: Any) -> None:
    """Outputs of the same file name would be one file under two names: refused at the second."""
    text = workspace.spec.read_text()
    workspace.write(text.replace("{o: o.txt}", "{o: o.txt, p: o.txt}"))
    result = workspace.call("run", "spec.yaml")
    assert result.returncode == 2
    assert "spec.yaml:9:28: " in result.stderr
    assert "the output 'o' is 'o.txt' already" in result.stderr


def test_every_file_of_an_output_is_part_of_it(workspace: Any) -> None:
    """Folders that are left out of inputs are an artifact's own: kept, digested and verified."""
    make = (
        "mkdir -p ${outputs.o}/.git ${outputs.o}/__pycache__; cat ${inputs.i} > ${outputs.o}/.git/x"
    )
    text = workspace.spec.read_text().replace("sort ${inputs.i} > ${outputs.o}", make)
    workspace.write(text.replace("wc -l < ${inputs.i}", "cat ${inputs.i}/.git/x"))
    first = workspace.run()["stages"]
    assert Path(first["third"]["outputs"]["o"]).read_text() == "x\ny\none\n"
    second = workspace.run("--set", "params.word=two")["stages"]
    assert Path(second["third"]["outputs"]["o"]).read_text() == "x\ny\ntwo\n"
    path = Path(first["second"]["outputs"]["o"]) / ".git" / "x"
    path.chmod(0o644)
    path.write_text("x\ny\nONE\n")
    told = workspace.call("cache", "verify", "spec.yaml")
    assert ".git/x has changed since it was stored" in told.stdout


@pytest.mark.parametrize(
    ("stage", "place", "what"),
    [
        (r'{kind: command, run: "a \0", outputs: {o: o.txt}}', "run", r"\0"),
        (r'{kind: command, run: a, outputs: {o: "o\0"}}', "outputs.o", r"\0"),
        (r'{kind: command, run: a, env: {X: "\0"}, outputs: {o: o.txt}}', "env.X", r"\0"),
        ("{kind: command, run: a, env: {A=B: x}, outputs: {o: o.txt}}", "env.A=B", "'A=B' cannot"),
        ("{kind: command, run: a, env: {'': x}, outputs: {o: o.txt}}", "env.", "'' cannot"),
    ],
)
def test_what_no_process_can_be_started_with_is_refused(
    workspace: Any, stage: str, place: str, what: str
) -> None:
    """At its place in the spec, before anything runs."""
    workspace.write(f"version: 1\nname: n\nstages:\n  a: {stage}\n")
    result = workspace.call("validate", "spec.yaml")
    assert result.returncode == 2
    assert result.stderr.startswith("spec.yaml:4:")
    assert f"stages.a.{place}: " in result.stderr
    assert what in result.stderr
