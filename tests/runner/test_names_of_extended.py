"""A name in a spec that another one extends means what lies beside the former."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import llmpipe
from llmpipe.errors import SpecError

PARENT = """\
version: 1
name: shared
stages:
  sft:
    kind: train
    base_model: ./base
    data: ./rows.jsonl
    axolotl: {max_steps: 1, torchdistx_path: libs}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A spec without a folder ``libs``, and its parent with one."""
    parent, child = tmp_path / "parent", tmp_path / "child"
    (parent / "base").mkdir(parents=True)
    (parent / "libs").mkdir()
    child.mkdir()
    (parent / "base" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (parent / "rows.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    (parent / "spec.yaml").write_text(PARENT)
    (child / "spec.yaml").write_text("version: 1\nname: mine\nextends: ../parent/spec.yaml\n")
    return child / "spec.yaml"


def test_a_bare_name_is_looked_for_beside_the_file_that_contains_it(spec: Path) -> None:
    """Once, at its line of the parent."""
    with pytest.raises(SpecError) as refused:
        llmpipe.load(spec).plan()
    (problem,) = refused.value.problems
    assert "libs is next to the spec, but is not written as a path" in problem.message
    assert problem.location is not None
    assert (Path(problem.location.file).parent.name, problem.location.line) == ("parent", 8)


def test_a_name_of_the_child_is_looked_for_beside_the_child(spec: Path) -> None:
    """What lies beside the parent is not meant."""
    text = "stages: {sft: {axolotl: {torchdistx_path: libs}}}\n"
    spec.write_text(spec.read_text() + text)
    with pytest.raises(SpecError) as refused:
        llmpipe.load(spec).plan()
    (problem,) = refused.value.problems
    assert "no such file or folder: libs" in problem.message
