"""Blocks whose form one field selects: what is said of a wrong one, in specs and in editors."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from llmpipe.cli.main import main
from llmpipe.spec.schema import editor_stage_schema

STAGE = "  a: {kind: curate, data: ./r.jsonl, steps: [{step: length, max_words: 9}]}\n"


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("length", "lenght", "4:53: stages.a.steps[0].step: unknown step 'lenght'", "'length'"),
        (
            "length",
            "other",
            "unknown step 'other'",
            "steps: balance, decontaminate, encoding, language",
        ),
        (
            "length",
            "3",
            "4:53: stages.a.steps[0].step: unknown step 3",
            "steps: balance, decontaminate",
        ),
        (
            "step: length, ",
            "",
            "stages.a.steps[0]: 'step' is missing",
            "steps: balance, decontaminate",
        ),
        ("max_words", "max_word", "4:61: stages.a.steps[0]: unknown key", "'max_words'"),
        ("9", "0", "4:72: stages.a.steps[0].max_words: must be a whole number of at least 1", ""),
        ("{step: length, max_words: 9}", "length", "steps[0]: must be a mapping, not ", ""),
        ("max_words: 9", "", "steps[0].step: has no effect without a limit", ""),
        ("{step: length, max_words: 9}", "", "steps: must be a non-empty list", ""),
    ],
)
def test_a_mistake_is_said_at_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str, hint: str
) -> None:
    """The form that the field selects decides what is wrong; an unknown form is one problem."""
    (tmp_path / "r.jsonl").write_text('{"text": "x"}\n')
    spec = tmp_path / "spec.yaml"
    spec.write_text("version: 1\nname: x\nstages:\n" + STAGE.replace(old, new, 1))
    assert main(["validate", str(spec)]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert hint in told
    assert told.count("spec.yaml:") == 1


@pytest.mark.parametrize(
    ("step", "count"),
    [
        ({"step": "length", "max_words": 9}, 0),
        ({"step": "length", "max_words": "${params.most}"}, 0),
        ({"step": "length", "threshold": 0.8}, 1),
        ({"step": "lenght"}, 1),
        ({"max_words": 9}, 1),
    ],
)
def test_editors_check_the_form_that_is_meant(step: dict[str, object], count: int) -> None:
    """Each mistake is one error."""
    schema = jsonschema.Draft7Validator(editor_stage_schema("curate"))
    stage = {"kind": "curate", "data": "./r.jsonl", "steps": [step]}
    assert len([*schema.iter_errors(stage)]) == count
