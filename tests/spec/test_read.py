"""From a file to a valid spec: all problems at once, profiles, settings, secrets."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from llmpipe.errors import SpecError, UsageError
from llmpipe.spec.model import Spec
from llmpipe.spec.read import read_spec

SPEC = """\
version: 1
name: sample
params: {steps: 60}
profiles:
  gpu: {stages: {sft: {axolotl: {bf16: auto}}}}
  short: {params: {steps: 5}}
stages:
  dataset: {kind: format, data: ./rows.jsonl, to: messages}
  sft:
    kind: train
    base_model: ./base
    data: dataset
    axolotl: {adapter: lora, max_steps: "${params.steps}", learning_rate: 5e-4}
"""


def read(tmp_path: Path, text: str, **options: object) -> Spec:
    """Write a spec and read it."""
    path = tmp_path / "spec.yaml"
    path.write_text(text, "utf-8")
    return read_spec(path, **options)  # type: ignore[arg-type]


def refused(tmp_path: Path, text: str, **options: object) -> str:
    """Read a spec that is wrong and return the message."""
    with pytest.raises(SpecError) as caught:
        read(tmp_path, text, **options)
    return re.sub(r"\S*spec\.yaml", "spec.yaml", caught.value.render())


def test_a_sound_spec_is_typed(tmp_path: Path) -> None:
    """A sound spec gives config objects with parameters filled in."""
    spec = read(tmp_path, SPEC)
    config = spec.stages["sft"].config
    assert config.axolotl["max_steps"] == 60  # type: ignore[attr-defined]
    assert config.axolotl["learning_rate"] == 0.0005  # type: ignore[attr-defined]


def test_profiles_and_settings_are_laid_over_in_order(tmp_path: Path) -> None:
    """Profiles merge deeply, later ones win, and --set wins over all."""
    spec = read(tmp_path, SPEC, profiles=["gpu", "short"])
    axolotl = spec.stages["sft"].config.axolotl  # type: ignore[attr-defined]
    assert (axolotl["bf16"], axolotl["max_steps"], axolotl["adapter"]) == ("auto", 5, "lora")
    spec = read(tmp_path, SPEC, settings=["stages.sft.axolotl.max_steps=7", "params.steps=9"])
    assert spec.stages["sft"].config.axolotl["max_steps"] == 7  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"profiles": ["gpv"]}, "did you mean 'gpu'?"),
        ({"settings": ["params.stepz=1"]}, "did you mean 'steps'?"),
        ({"settings": ["stages.sfd.x=1"]}, "did you mean 'sft'?"),
        ({"settings": ["steps"]}, "such as --set"),
        ({"settings": ["stage.x=1"]}, "did you mean 'stages'?"),
    ],
)
def test_wrong_options_are_explained(
    tmp_path: Path, options: dict[str, list[str]], hint: str
) -> None:
    """A profile or a setting that the spec does not have is a usage error with a suggestion."""
    with pytest.raises(UsageError) as caught:
        read(tmp_path, SPEC, **options)
    assert hint in caught.value.render()


def test_all_problems_at_once_sorted_by_line(tmp_path: Path) -> None:
    """Unknown keys, wrong types and unknown kinds come together, in the order of the text."""
    message = refused(
        tmp_path,
        """\
version: 1
name: sample
stagez: {}
stages:
  a: {kind: formt, data: ./x, to: messages}
  b: {kind: format, data: 3, to: messages, dedupe: true}
  c: {data: ./x}
  D: {kind: format, data: ./x, to: messages}
""",
    )
    assert "spec.yaml:3:1: unknown key 'stagez'" in message
    assert "did you mean 'stages'?" in message
    assert "spec.yaml:5:13: stages.a: unknown kind 'formt'" in message
    assert "did you mean 'format'?" in message
    assert "spec.yaml:6:27: stages.b.data: must be a string, not 3" in message
    assert "stages.b: unknown key 'dedupe'" in message
    assert "did you mean 'dedup'?" in message
    assert "spec.yaml:7:3: stages.c: 'kind' is missing" in message
    assert "stages.D: not a stage id" in message
    lines = [int(n) for n in re.findall(r"^spec\.yaml:(\d+):", message, re.MULTILINE)]
    assert lines == sorted(lines)


def test_what_is_wrong_inside_an_optional_mapping_is_shown_at_its_place(tmp_path: Path) -> None:
    """A key that may be null or a mapping is looked into like any other; a plain value is not."""
    stage = "a: {kind: format, data: ./x, to: messages, map: {user: q, asistant: a}, split: 7}"
    message = refused(tmp_path, f"version: 1\nname: x\nstages:\n  {stage}\n")
    assert "spec.yaml:4:61: stages.a.map: unknown key 'asistant'" in message
    assert "did you mean 'assistant'?" in message
    assert "stages.a.split: must be a mapping, not 7" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 2\nname: x\nstages: {a: {kind: format, data: ./x, to: messages}}", "version"),
        ("version: 1\nstages: {a: {kind: format, data: ./x, to: messages}}", "'name' is missing"),
        ("version: 1\nname: x", "'stages' is missing"),
        ("version: 1\nname: x\nstages: {}", "stages: must be a non-empty mapping, not {}"),
        ("version: 1\nname: x\nstages: [a]", "stages: must be a non-empty mapping, not ["),
        ("version: 1\nname: x\nstages: {a: 3}", "stages.a: must be a mapping, not 3"),
        ("version: 1\nname: 'a b'\nstages: {a: {kind: 3}}", 'not "a b"'),
    ],
)
def test_the_top_level_is_closed(tmp_path: Path, text: str, message: str) -> None:
    """What is wrong at the top is said in plain words."""
    assert message in refused(tmp_path, text)


def test_a_secret_only_where_it_is_allowed(tmp_path: Path) -> None:
    """A secret in a plain field would be stored and hashed: refused; in a command's env it is fine."""
    text = """\
version: 1
name: x
stages:
  c: {kind: command, run: "echo ${secret:TOKEN} > ${outputs.o}", outputs: {o: o.txt}}
"""
    assert "a secret is not allowed here" in refused(tmp_path, text)
    allowed = text.replace('run: "echo ${secret:TOKEN}', "env: {T: '${secret:TOKEN}'}, run: \"true")
    assert read(tmp_path, allowed).stages["c"].config.env == {"T": "${secret:TOKEN}"}  # type: ignore[attr-defined]


def test_a_checked_spec_is_remembered(tmp_path: Path) -> None:
    """The second reading of a sound spec finds its ticket; a changed spec does not."""
    memo = tmp_path / "memo"
    read(tmp_path, SPEC, memo=memo)
    tickets = list(memo.iterdir())
    read(tmp_path, SPEC + "# a comment\n", memo=memo)
    assert list(memo.iterdir()) == tickets
    assert "unknown key" in refused(tmp_path, SPEC + "    nope: 1\n", memo=memo)


def test_a_folder_is_no_spec(tmp_path: Path) -> None:
    """Naming a folder suggests the file in it."""
    with pytest.raises(UsageError, match="is a folder"):
        read_spec(tmp_path)


@pytest.mark.parametrize("name", ["default", "a+b", "a=b", "a b", "a\tb", ""])
def test_a_profile_has_a_name_that_the_lock_can_tell(tmp_path: Path, name: str) -> None:
    """The lock names its sections by profiles: what it could not tell apart is refused."""
    text = SPEC.replace("profiles:\n", f"profiles:\n  {json.dumps(name)}: {{}}\n")
    with pytest.raises(SpecError) as caught:
        read(tmp_path, text)
    (problem,) = caught.value.problems
    assert problem.message == f"profiles: {name!r} cannot be the name of a profile"
    line = text.splitlines().index(f"  {json.dumps(name)}: {{}}") + 1
    assert problem.location is not None
    assert problem.location[1:3] == (line, 3)


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("name: sample", 'name: "sample\\n"', "name"),
        ("name: sample", "name: |\n  sample", "name"),
        ("to: messages", 'resources: {memory: "4GB\\n"}', "stages.dataset.resources.memory"),
        ("data: ./rows.jsonl", 'sources: [{data: a/b, split: "train\\n"}]', "sources[0].split"),
    ],
)
def test_a_line_feed_at_the_end_is_part_of_a_value(
    tmp_path: Path, old: str, new: str, where: str
) -> None:
    """A block of text ends in one; a name with it must not become the name of a file."""
    assert f"{where}: must match" in refused(tmp_path, SPEC.replace(old, new))
