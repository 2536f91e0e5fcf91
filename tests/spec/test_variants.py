"""Kinds whose config has several forms: what is said of a wrong form, in specs and in editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from test_plugins import llmpipe as run_llmpipe
from test_plugins import offer

from llmpipe.cli.main import main
from llmpipe.registry import KINDS, config_class, stage_class, variant_names
from llmpipe.spec.reference import reference_page
from llmpipe.spec.schema import editor_schema, editor_stage_schema, strict_schema
from llmpipe.stages.generate.methods import METHODS

STAGE = (
    "  rows: {kind: generate, method: self-instruct, seeds: ./seeds.jsonl, count: 2, "
    "teacher: {engine: openai, model: m, base_url: http://h/v1}}\n"
)
FORMS = [(kind, name) for kind in sorted(KINDS) for name in variant_names(stage_class(kind))]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "method: self-instruct",
            "method: self_instruct",
            "4:34: stages.rows.method: unknown method 'self_instruct'",
        ),
        ("method: self-instruct", "method: 3", "4:34: stages.rows.method: unknown method 3"),
        ("method: self-instruct, ", "", "4:3: stages.rows: 'method' is missing"),
        ("seeds", "rounds: 2, seeds", "4:49: stages.rows: unknown key 'rounds'"),
        ("seeds", "seedz", "4:49: stages.rows: unknown key 'seedz'"),
        ("seeds: ./seeds.jsonl, ", "", "4:3: stages.rows: 'seeds' is missing"),
        ("count: 2", "count: 0", "4:78: stages.rows.count: must be a whole number of at least 1, not 0"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_at_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    """Exit code 2, the line and column, and what to do."""
    (tmp_path / "seeds.jsonl").write_text('{"instruction": "Weigh it."}\n')
    spec = tmp_path / "spec.yaml"
    spec.write_text("version: 1\nname: x\nstages:\n" + STAGE.replace(old, new, 1))
    assert main(["validate", str(spec)]) == 2
    assert f"spec.yaml:{message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ("self-instruct", "self_instruct", "did you mean 'self-instruct'?"),
        ("self-instruct", "falcon", f"methods: {', '.join(sorted(METHODS))}"),
        ("method: self-instruct, ", "", f"methods: {', '.join(sorted(METHODS))}"),
        ("seeds", "rounds: 2, seeds", "it belongs to method: evol-instruct; remove it"),
        ("seeds", "prompts_per_bach: 1, seeds", "did you mean 'prompts_per_batch'?"),
    ],
)
def test_a_hint_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, hint: str
) -> None:
    """The nearest name, all names, or the method that a field belongs to."""
    spec = tmp_path / "spec.yaml"
    spec.write_text("version: 1\nname: x\nstages:\n" + STAGE.replace(old, new, 1))
    assert main(["validate", str(spec)]) == 2
    assert hint in capsys.readouterr().err


def problems(stage: dict[str, Any]) -> list[str]:
    """Check a stage in both editor schemas, where they say the same; return the messages."""
    of_stage = jsonschema.Draft7Validator(editor_stage_schema(stage["kind"]))
    document = {"version": 1, "name": "x", "stages": {"a": stage}}
    of_spec = jsonschema.Draft7Validator(editor_schema())
    found = sorted(error.message for error in of_stage.iter_errors(stage))
    assert sorted(error.message for error in of_spec.iter_errors(document)) == found
    return found


@pytest.mark.slow
def test_editors_choose_by_the_method() -> None:
    """A field of another method is refused, a required one missed, an expression taken."""
    teacher = {"engine": "openai", "model": "m", "base_url": "http://h/v1"}
    stage = {"kind": "generate", "method": "self-instruct", "teacher": teacher, "count": 2}
    sound = {**stage, "seeds": "./seeds.jsonl"}
    assert problems(sound) == []
    assert problems({**sound, "prompts_per_batch": "${params.n}"}) == []
    assert problems({**sound, "method": "${params.method}"}) == []
    assert problems(stage) == ["'seeds' is a required property"]
    (message,) = problems({**sound, "rounds": 2})
    assert "'rounds' was unexpected" in message
    assert problems({**sound, "method": "evol-instruct", "rounds": 2}) == []
    (message,) = problems({**sound, "method": "falcon"})
    assert "is not valid under any of the given schemas" in message


def test_an_overlay_need_not_name_the_method() -> None:
    """A profile may change a field of either method, and no field of none."""
    schema = jsonschema.Draft7Validator(editor_schema())
    spec = {"version": 1, "name": "x", "stages": {"a": {"kind": "serve", "model": "./m.gguf"}}}

    def overlaid(**fields: Any) -> list[str]:
        profiles = {"big": {"stages": {"rows": fields}}}
        return [error.message for error in schema.iter_errors({**spec, "profiles": profiles})]

    assert overlaid(rounds=2) == overlaid(prompts_per_batch=2) == []
    assert overlaid(kind="generate", rounds=2) == []
    assert overlaid(kind="generate", method="evol-instruct", rounds=2) == []
    assert overlaid(kind="generate", method="self-instruct", rounds=2)
    assert overlaid(kind="generate", ronds=2)
    assert overlaid(ronds=2)


@pytest.mark.parametrize(("kind", "name"), FORMS)
def test_a_form_is_closed_and_pins_its_name(kind: str, name: str) -> None:
    """Its schema takes no unknown key, and its field takes no other name."""
    schema = strict_schema(kind, name)
    stage = stage_class(kind)
    config = config_class(stage, name)
    definition = schema["$defs"][config.__name__]
    assert stage.variants is not None
    assert definition["additionalProperties"] is False
    assert definition["properties"][stage.variants.field]["enum"] == [name]
    assert issubclass(config, stage.Config)


@pytest.mark.parametrize(("kind", "name"), FORMS)
def test_the_reference_page_has_a_table_of_each_form(kind: str, name: str) -> None:
    """Below the kind's section, with the fields that only this form has."""
    section = reference_page().partition(f"\n### {kind}: {name}\n")[2].partition("\n## ")[0]
    stage = stage_class(kind)
    for field in config_class(stage, name).__struct_fields__:
        assert field in stage.Config.__struct_fields__ or f"| `{field}` |" in section


METHOD = '''
from typing import Literal
from llmpipe.stages.generate.protocol import GenerateConfig, GeneratedRow

class EchoConfig(GenerateConfig, frozen=True, kw_only=True):
    """Make the same row again and again."""
    method: Literal["echo"]
    """How new rows are made."""
    said: str
    """What rows say."""

class Echo:
    Config = EchoConfig
    material = "one word"

    def __init__(self, ctx):
        self.said = ctx.config.said

    def draw(self, teacher, number):
        fields = {"text": f"{self.said} {number}"}
        yield GeneratedRow(fields, fields["text"], (), ("echo",))

    def known_questions(self):
        return ()

    def metrics(self):
        return {}
'''
PLUGGED = """\
version: 1
name: x
stages:
  rows:
    {kind: generate, method: echo, said: hello, count: 3,
     teacher: {engine: openai, model: m, base_url: http://h/v1}}
"""


@pytest.mark.slow
def test_a_package_brings_a_method(tmp_path: Path) -> None:
    """Its rows go the way of all rows; its own fields are checked."""
    packages = offer(tmp_path, "echo = odd:Echo", METHOD, group="llmpipe.generation_methods")
    (tmp_path / "spec.yaml").write_text(PLUGGED)
    result = run_llmpipe(tmp_path, packages, "run", "spec.yaml")
    assert result.returncode == 0, result.stderr
    assert "3 rows, 0 rejected" in result.stderr
    printed = json.loads(run_llmpipe(tmp_path, packages, "schema").stdout)
    assert "said" in printed["definitions"]["stage.generate.echo"]["properties"]
    (tmp_path / "spec.yaml").write_text(PLUGGED.replace("said", "sayd"))
    result = run_llmpipe(tmp_path, packages, "validate", "spec.yaml")
    assert result.returncode == 2
    assert "did you mean 'said'?" in result.stderr


def test_a_method_that_breaks_the_contract_is_blamed_on_its_package(tmp_path: Path) -> None:
    """The message names the package, the entry point and what is wrong."""
    code = "class Echo:\n    Config = dict\n"
    packages = offer(tmp_path, "echo = odd:Echo", code, group="llmpipe.generation_methods")
    (tmp_path / "spec.yaml").write_text(PLUGGED)
    result = run_llmpipe(tmp_path, packages, "validate", "spec.yaml")
    assert result.returncode == 2
    assert "the method 'echo' of the package odd-kinds 1.2" in result.stderr
    assert (
        "its Config is not a subclass of llmpipe.stages.generate.protocol.GenerateConfig"
        in result.stderr
    )
