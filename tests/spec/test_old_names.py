"""Renamed fields: the old name is read, with a note that gives the new one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from llmpipe.cli.main import main
from llmpipe.errors import SpecError
from llmpipe.spec.read import read_spec

SPEC = """\
version: 1
name: names
stages:
  rows:
    kind: format
    sources:
      - {data: ./a.jsonl, sample: 2, seed: 3}
    split:
      test: 1
      seed: 7
  dev:
    kind: evaluate
    models: [./model]
    data: rows.test
    seed: 5
"""


def write(folder: Path, text: str) -> Path:
    """Write a spec and the file that it names."""
    (folder / "a.jsonl").write_text('{"prompt": "Hi", "completion": "Hello"}\n' * 9)
    path = folder / "spec.yaml"
    path.write_text(text, "utf-8")
    return path


def test_an_old_name_is_read_at_every_depth(tmp_path: Path) -> None:
    """At the top of a stage, in a block and in a list; each note has its place."""
    spec = read_spec(write(tmp_path, SPEC))
    rows, dev = spec.stages["rows"], spec.stages["dev"]
    assert (rows.config.split.random_seed, rows.config.sources[0].random_seed) == (7, 3)
    assert dev.config.random_seed == 5
    at = f"{tmp_path}/spec.yaml"
    told = "'seed' is now called 'random_seed'"
    assert rows.notes == (
        f"{at}:7:38: stages.rows.sources[0]: {told}",
        f"{at}:10:7: stages.rows.split: {told}",
    )
    assert dev.notes == (f"{at}:15:5: stages.dev: {told}",)
    new = read_spec(write(tmp_path, SPEC.replace("seed", "random_seed")))
    assert {name: stage.config for name, stage in new.stages.items()} == {
        name: stage.config for name, stage in spec.stages.items()
    }
    assert not any(stage.notes for stage in new.stages.values())


def test_an_old_name_may_be_an_axis_or_a_setting(tmp_path: Path) -> None:
    """Matrices and ``--set`` take it; ``axolotl.seed`` stays Axolotl's."""
    path = write(tmp_path, SPEC.replace("seed: 5", "matrix: {seed: [1, 2]}"))
    spec = read_spec(path, settings=["stages.rows.split.seed=8"])
    assert [spec.stages[f"dev@seed={n}"].config.random_seed for n in (1, 2)] == [1, 2]
    assert spec.stages["rows"].config.split.random_seed == 8
    sft = "  sft: {kind: train, base_model: ./model, data: rows, axolotl: {seed: 4}}\n"
    assert read_spec(write(tmp_path, SPEC + sft)).stages["sft"].notes == ()


def test_both_names_are_one_too_many(tmp_path: Path) -> None:
    """The old one is then an unknown key; so it is where a setting or a profile adds it."""
    with pytest.raises(SpecError, match=r"stages\.dev: unknown key 'seed'") as caught:
        read_spec(write(tmp_path, SPEC + "    random_seed: 1\n"))
    (problem,) = caught.value.problems
    assert problem.location.line == 15
    assert (
        problem.hint
        == "'seed' is now called 'random_seed', which is set as well; remove one of them"
    )
    spec = write(tmp_path, SPEC.replace("    seed: 5", "    random_seed: 5"))
    with pytest.raises(SpecError) as caught:
        read_spec(spec, settings=["stages.dev.seed=8"])
    assert caught.value.problems[0].hint == problem.hint


def test_plan_and_validate_tell_the_new_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once for all points of a sweep."""
    path = write(tmp_path, SPEC.partition("  dev:")[0] + "    matrix: {split.test: [1, 2]}\n")
    for command in ("validate", "plan"):
        assert main([command, str(path)]) == 0
        notes = capsys.readouterr().err
        assert notes.count("stages.rows.split: 'seed' is now called 'random_seed'") == 1


def test_editors_mark_an_old_name(capsys: pytest.CaptureFixture[str]) -> None:
    """The published schema takes it, and says what it is called now."""
    assert main(["schema", "evaluate"]) == 0
    fields = yaml.safe_load(capsys.readouterr().out)["properties"]
    assert fields["seed"]["deprecationMessage"] == "'seed' is now called 'random_seed'"
    assert "formerly" not in str(fields)
