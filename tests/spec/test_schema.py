"""The published schemas and the page made from the same classes: what they take, refuse and say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from llmpipe.cli.main import main
from llmpipe.registry import KINDS, stage_class
from llmpipe.spec.matrix import SETTINGS
from llmpipe.spec.reference import reference_page
from llmpipe.spec.schema import (
    LITERAL,
    MATRIX,
    editor_schema,
    editor_stage_schema,
    published_schemas,
    stale_schemas,
    strict_schema,
)

ROOT = Path(__file__).parents[2]
SPEC: dict[str, Any] = {
    "version": 1,
    "name": "sample",
    "stages": {"sft": {"kind": "train", "base_model": "a/b", "data": "./rows.jsonl"}},
}


def complaints(document: Any, schema: dict[str, Any] | None = None) -> list[str]:
    """Hold a document against the editor form and return what it says."""
    validator = jsonschema.Draft7Validator(schema or editor_schema())
    return [
        error.message
        for found in validator.iter_errors(document)
        for error in (found, *(found.context or ()))
    ]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_field_takes_an_expression(kind: str) -> None:
    """A ``${…}`` may stand for any value: a number, a word of a list, a whole block."""
    schema = editor_stage_schema(kind)
    for holder in (schema, *schema["definitions"].values()):
        for name, field in holder["properties"].items():
            whole = {**field, "definitions": schema["definitions"]}
            assert name in LITERAL or not complaints("${params.x}", whole), name


def test_a_resolved_document_takes_no_expression() -> None:
    """In the strict form, which checks what the expressions gave, a number is a number."""
    stage = {"kind": "train", "base_model": "a/b", "data": "./x", "timeout": "${params.x}"}
    errors = jsonschema.Draft202012Validator(strict_schema("train")).iter_errors(stage)
    assert [list(error.path) for error in errors] == [["timeout"]]


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*/spec.yaml")), ids=str)
def test_an_example_is_sound_by_the_published_schema(path: Path) -> None:
    """Any validator of JSON Schema takes the examples, not only the one that editors use."""
    assert complaints(yaml.safe_load(path.read_text("utf-8"))) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"profiles": {"gpu": {"stages": {"sft": {"axolotl": {"bf16": "auto"}}}}}},
        {"profiles": {"gpu": {"params": {"x": 1}}, "none": {}}},
        {"extends": "./base.yaml", "stages": {"sft": {"data": "./other.jsonl"}}},
        {"extends": ["./base.yaml"], "stages": {}},
        {"stages": {"sft": {"kind": "train", "base_model": "a/b", "matrix": {"data": ["./x"]}}}},
    ],
)
def test_what_is_completed_elsewhere_need_not_be_whole(change: dict[str, Any]) -> None:
    """Profiles, specs that extend others, and stages with a matrix may lack required fields."""
    assert complaints({**SPEC, **change}) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"stages": {"sft": {**SPEC["stages"]["sft"], "timeut": 3}}},
        {"stages": {"sft": {**SPEC["stages"]["sft"], "timeut": 3, "matrix": {"data": ["./x"]}}}},
        {"profiles": {"gpu": {"stages": {"sft": {"timeut": 3}}}}},
        {"profiles": {"gpu": {"stages": {"sft": {"kind": "train", "timeut": 3}}}}},
        {"extends": "./base.yaml", "stages": {"sft": {"timeut": 3}}},
    ],
)
def test_a_misspelled_key_is_found_wherever_a_stage_stands(change: dict[str, Any]) -> None:
    """Being incomplete is not an excuse: what is written must be known."""
    assert any("timeut" in message for message in complaints({**SPEC, **change}))


@pytest.mark.slow
def test_a_folder_of_schemas_is_checked_file_by_file(tmp_path: Path) -> None:
    """A missing, a changed and a foreign file are each named."""
    assert main(["schema", "--write", str(tmp_path)]) == 0
    assert stale_schemas(tmp_path) == []
    (tmp_path / "stages/train.schema.json").unlink()
    (tmp_path / "stages/format.schema.json").write_text("{}")
    (tmp_path / "stages/old.schema.json").write_text("{}")
    expected = [f"stages/{name}.schema.json" for name in ("format", "old", "train")]
    assert stale_schemas(tmp_path) == expected
    assert len(published_schemas()) == len(KINDS) + 1


def test_the_reference_page_is_fresh() -> None:
    """``docs/reference/stages.md`` is what ``llmpipe schema --docs`` writes."""
    assert (ROOT / "docs/reference/stages.md").read_text("utf-8") == reference_page()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_reference_page_names_every_field(kind: str) -> None:
    """Each kind has a section with all its fields; links into the page lead somewhere."""
    page = reference_page()
    section = page.partition(f"\n## {kind}\n")[2].partition("\n## ")[0]
    assert section
    common = page.partition("\n## Every stage\n")[2].partition("\n## ")[0]
    for field in stage_class(kind).Config.__struct_fields__:
        assert f"| `{field}` |" in section + common
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    slugs = {heading.lower().replace(":", "").replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\(#([^)]+)\)", section)) <= slugs


@pytest.mark.slow
def test_a_stale_page_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--check`` with ``--docs`` ends in 1 and names the page; writing it makes that good."""
    folder, page = str(tmp_path / "schemas"), tmp_path / "docs/stages.md"
    assert main(["schema", "--write", folder]) == 0
    assert main(["schema", "--check", folder, "--docs", str(page)]) == 1
    assert capsys.readouterr().err == f"{page} is stale\n"
    assert main(["schema", "--docs", str(page)]) == 0
    assert main(["schema", "--check", folder, "--docs", str(page)]) == 0
    page.write_text("edited by hand")
    assert main(["schema", "--check", folder, "--docs", str(page)]) == 1


@pytest.mark.slow
def test_what_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is a file is a usage error, not a traceback."""
    (tmp_path / "file").touch()
    assert main(["schema", "--write", str(tmp_path / "file")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_matrix_is_described_as_it_is_read() -> None:
    """The editor form knows the keys of a matrix that are not axes."""
    assert tuple(MATRIX["properties"]) == SETTINGS
