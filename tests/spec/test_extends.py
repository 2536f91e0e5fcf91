"""Specs laid over others: what lies over what, whose folder a path belongs to, and mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmpipe.errors import LlmpipeError, SpecError
from llmpipe.graph.compile import compile_spec
from llmpipe.graph.sources import LocalPath
from llmpipe.runner.preflight import preflight
from llmpipe.runner.project import Project
from llmpipe.runner.store import Store
from llmpipe.spec.read import read_spec

BASE = """\
version: 1
name: base
params: {rows: ./rows.jsonl, style: plain}
profiles:
  all: {params: {style: full}}
stages:
  data: {kind: command, run: "cat ${inputs.i} > ${outputs.o}; echo ${params.style}", inputs: {i: ./base.txt}, outputs: {o: o.txt}}
  rows: {kind: format, data: "${params.rows}", to: messages}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base in a folder of its own, and a folder beside it for those that extend it."""
    for name in ("common", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text("{}\n")
        (tmp_path / name / f"{name}.txt").write_text(f"{name}\n")
    (tmp_path / "common" / "base.yaml").write_text(BASE)
    (tmp_path / "common" / "base.txt").write_text("base\n")
    return tmp_path


def read(folder: Path, text: str, **options: Any) -> Any:
    """Write mine/spec.yaml and read it."""
    path = folder / "mine" / "spec.yaml"
    path.write_text(f"version: 1\n{text}")
    return read_spec(path, **options)


def source(folder: Path, text: str, stage: str, port: str, **options: Any) -> Path:
    """Return the file that an input of a stage is bound to."""
    bound = compile_spec(read(folder, text, **options)).nodes[stage].bindings[port].source
    assert isinstance(bound, LocalPath)
    return bound.path.relative_to(folder)


def refused(folder: Path, text: str, **options: Any) -> str:
    """Return the message of a spec that cannot be used."""
    with pytest.raises(LlmpipeError) as caught:
        compile_spec(read(folder, text, **options))
    return caught.value.render().replace(str(folder), "")


def test_a_spec_lies_over_its_base(folder: Path) -> None:
    """Mappings merge by key; what the base has and the spec does not name stays."""
    spec = read(folder, "extends: ../common/base.yaml\nname: mine\nstages: {rows: {to: alpaca}}\n")
    assert spec.name == "mine"
    assert spec.document["stages"]["rows"] == {
        "kind": "format",
        "data": "./rows.jsonl",
        "to": "alpaca",
    }
    assert list(spec.stages) == ["data", "rows"]


def test_a_path_belongs_to_the_file_that_it_is_written_in(folder: Path) -> None:
    """The base's paths start at the base, the spec's at the spec, wherever the command is run."""
    plain = "extends: ../common/base.yaml\n"
    assert source(folder, plain, "data", "i") == Path("common/base.txt")
    over = f"{plain}stages: {{data: {{inputs: {{i: ./mine.txt}}}}}}\n"
    assert source(folder, over, "data", "i") == Path("mine/mine.txt")
    over = f"{plain}stages: {{data: {{inputs: {{i: ../common/common.txt}}}}}}\n"
    assert source(folder, over, "data", "i") == Path("common/common.txt")


def test_a_path_in_a_parameter_belongs_to_the_file_of_the_parameter(folder: Path) -> None:
    """The base says where a parameter is used; who sets it says from where its path starts."""
    plain = "extends: ../common/base.yaml\n"
    assert source(folder, plain, "rows", "data") == Path("common/rows.jsonl")
    mine = f"{plain}params: {{rows: ./rows.jsonl}}\n"
    assert source(folder, mine, "rows", "data") == Path("mine/rows.jsonl")
    given = ["params.rows=./rows.jsonl"]
    assert source(folder, plain, "rows", "data", settings=given) == Path("mine/rows.jsonl")
    joined = f'{plain}params: {{d: .}}\nstages: {{rows: {{data: "${{params.rows}}"}}}}\n'
    assert source(folder, joined, "rows", "data") == Path("common/rows.jsonl")


def test_a_path_that_begins_with_a_parameter_goes_with_it(folder: Path) -> None:
    """The folder in the parameter and the name in the stage are one path."""
    base = folder / "common" / "base.yaml"
    base.write_text(
        BASE.replace("rows: ./rows.jsonl", "dir: ./").replace(
            '"${params.rows}"', '"${params.dir}rows.jsonl"'
        )
    )
    plain = "extends: ../common/base.yaml\n"
    assert source(folder, plain, "rows", "data") == Path("common/rows.jsonl")
    assert source(folder, f"{plain}params: {{dir: ./}}\n", "rows", "data") == Path(
        "mine/rows.jsonl"
    )


def test_what_is_wrong_with_a_parameter_is_said_where_it_was_set(folder: Path) -> None:
    """The base's line is sound; the line to change is the one that set the value."""
    message = refused(folder, "extends: ../common/base.yaml\nparams: {rows: ./nope.jsonl}\n")
    assert message.startswith("/mine/spec.yaml:3:16: stages.rows.data: no such file")


def test_profiles_of_the_base_are_there_and_settings_lie_over_them(folder: Path) -> None:
    """A spec may use and change the base's profiles; --set has the last word."""

    def style(text: str, **options: Any) -> str:
        return str(read(folder, f"extends: ../common/base.yaml\n{text}", **options).params["style"])

    assert style("") == "plain"
    assert style("params: {style: mine}\n") == "mine"
    assert style("params: {style: mine}\n", profiles=["all"]) == "full"
    assert style("profiles: {all: {params: {style: own}}}\n", profiles=["all"]) == "own"
    given = ["params.style=set"]
    assert style("", profiles=["all"], settings=given) == "set"


def test_null_empties_what_may_be_empty(folder: Path) -> None:
    """A value that may be left out is taken away by it; a stage, or what must hold a value, not."""
    base = (folder / "common" / "base.yaml").read_text()
    (folder / "common" / "base.yaml").write_text(base.replace("to: m", "split: {test: 1}, to: m"))
    over = "extends: ../common/base.yaml\nstages: {rows: "
    assert read(folder, over + "{}}").stages["rows"].config.split.test == 1
    assert read(folder, over + "{split: null}}").stages["rows"].config.split is None
    assert "stages.rows: must be a mapping, not null" in refused(folder, over + "null}")
    assert "stages.rows.to: must be one of" in refused(folder, over + "{to: null}}")


def test_a_later_base_lies_over_an_earlier_one(folder: Path) -> None:
    """Several bases are laid one over the other, the spec over all of them."""
    (folder / "common" / "more.yaml").write_text(
        "version: 1\nparams: {style: more, depth: 3}\nstages: {rows: {to: alpaca}}\n"
    )
    both = read(folder, "extends: [../common/base.yaml, ../common/more.yaml]\n")
    assert both.params == {"rows": "./rows.jsonl", "style": "more", "depth": 3}
    assert both.document["stages"]["rows"]["to"] == "alpaca"
    turned = read(folder, "extends: [../common/more.yaml, ../common/base.yaml]\n")
    assert turned.params["style"] == "plain"
    assert turned.document["stages"]["rows"]["to"] == "messages"


def test_a_base_may_have_a_base(folder: Path) -> None:
    """Each path under extends starts at its own file."""
    (folder / "common" / "middle.yaml").write_text(
        "version: 1\nextends: ./base.yaml\nname: middle\n"
    )
    assert read(folder, "extends: ../common/middle.yaml\n").name == "middle"


def test_a_problem_is_shown_in_the_file_that_has_it(folder: Path) -> None:
    """A mistake in the base has the base's name and line."""
    (folder / "common" / "base.yaml").write_text(BASE.replace("to: messages", "too: messages"))
    message = refused(folder, "extends: ../common/base.yaml\n")
    assert "common/base.yaml:8:" in message
    assert "did you mean 'to'?" in message


def test_a_key_that_is_overridden_lies_where_it_is_written(folder: Path) -> None:
    """In the file that extends the base, not at the base's line; its neighbors stay the base's."""
    spec = read(folder, "extends: ../common/base.yaml\nname: mine\nstages: {rows: {to: alpaca}}\n")
    stage = spec.root.value["stages"].value["rows"]
    assert Path(stage.keys["to"].file).name == "spec.yaml"
    assert Path(stage.keys["kind"].file).name == "base.yaml"


@pytest.mark.parametrize(
    ("extends", "message"),
    [
        ("./spec.yaml", "extends: files in a circle: /mine/spec.yaml → /mine/spec.yaml"),
        ("../common/round.yaml", "extends: files in a circle"),
        ("../common/bose.yaml", "no such file: ../common/bose.yaml\n"),
        ("../common/bose.yaml", "did you mean 'base.yaml'?"),
        ("../common", "no such file: ../common"),
        ("[./spec.yaml, 3]", "files in a circle"),
        ("3", "must be a path to a spec"),
        ("{a: b}", "must be a path to a spec"),
        ('"./a\\0b/c.yaml"', "must be a path to a spec"),
        ("~nouser/base.yaml", "no such file: ~nouser/base.yaml"),
        ("'${params.x}'", "no such file: ${params.x}"),
    ],
)
def test_bases_that_cannot_be(folder: Path, extends: str, message: str) -> None:
    """A base that is missing or leads back is an error at its line."""
    (folder / "common" / "round.yaml").write_text("version: 1\nextends: ../mine/spec.yaml\n")
    found = refused(folder, f"extends: {extends}\n")
    assert message in found
    assert "spec.yaml:2:" in found or "round.yaml:2:" in found


def test_a_chain_without_end_is_refused(folder: Path) -> None:
    """Twenty files deep are enough."""
    for i in range(30):
        text = f"version: 1\nextends: ./b{i + 1}.yaml\n"
        (folder / "common" / f"b{i}.yaml").write_text(text)
    assert "over 20 files deep" in refused(folder, "extends: ../common/b0.yaml\n")


def test_a_base_of_another_version_is_refused(folder: Path) -> None:
    """Who extends a base reads it as the language that it is written in."""
    (folder / "common" / "base.yaml").write_text(BASE.replace("version: 1", "version: 2"))
    message = refused(folder, "extends: ../common/base.yaml\n")
    assert "common/base.yaml:1:" in message


def test_unknown_profiles_are_told_from_known_ones(folder: Path) -> None:
    """The base's profiles are offered as the spec's own."""
    message = refused(folder, "extends: ../common/base.yaml\n", profiles=["al"])
    assert "did you mean 'all'?" in message


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("data: {inputs: {i: HERE}}", "./base.txt"),
        ("data: {env: {X: HERE}}", "a word"),
        ("data: {retries: HERE}", 3),
        ("data: {resources: {cpus: HERE}}", 2),
        ("rows: {split: {test: HERE}}", 0.5),
        ("rows: {split: {test: 3}, matrix: {split.seed: HERE}}", [1, 2]),
        ("rows: {split: {test: 3}, matrix: {split.seed: [HERE]}}", 7),
        ("rows: {freeze: HERE}", True),
        ("rows: {description: HERE}", "for us"),
    ],
)
def test_a_parameter_may_stand_anywhere_in_a_stage(folder: Path, place: str, value: object) -> None:
    """A whole value keeps its type, whatever the field takes."""
    base = BASE.replace("params: {", "params: {here: HERE, ").replace("HERE", repr(value).lower())
    (folder / "common" / "base.yaml").write_text(base)
    changed = place.replace("HERE", '"${params.here}"')
    spec = read(folder, f"extends: ../common/base.yaml\nstages: {{{changed}}}\n")
    written = place.replace("HERE", repr(value).lower())
    expected = read(folder, f"extends: ../common/base.yaml\nstages: {{{written}}}\n")
    assert spec.document["stages"] == expected.document["stages"]
    assert list(spec.stages) == list(expected.stages)


def test_a_figure_of_a_stage_is_no_value(folder: Path) -> None:
    """What is known only at run time is an artifact; the message says what to do instead."""
    with pytest.raises(SpecError) as caught:
        read(
            folder,
            "extends: ../common/base.yaml\nstages: {data: {env: {LOSS: '${stages.sft.loss}'}}}\n",
        )
    message = caught.value.render()
    assert "${stages.sft.loss}: a value known only at run time cannot be used in a spec" in message
    assert "name the stage's output where a reference is taken" in message
    assert "use a select stage" in message


@pytest.mark.heavy
def test_an_axolotl_file_of_the_base_is_checked_where_it_lies(folder: Path) -> None:
    """Also by the check against the installed Axolotl, before anything runs."""
    (folder / "common" / "lora.yml").write_text("adapter: lora\nlearning_rte: 1\n")
    (folder / "mine" / "config.json").write_text("{}")
    (folder / "common" / "base.yaml").write_text(
        BASE + "  sft: {kind: train, base_model: ../mine, data: rows, axolotl_file: ./lora.yml}\n"
    )
    graph = compile_spec(read(folder, "extends: ../common/base.yaml\n"))
    with pytest.raises(SpecError) as caught:
        preflight(Project(graph, Store(folder / "home")), ["sft"], strict=False)
    assert "did you mean 'learning_rate'?" in caught.value.render()
