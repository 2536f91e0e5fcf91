"""Held-out rows do not shape a model, whatever passes them on."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmpipe.errors import SpecError
from llmpipe.graph.compile import compile_spec
from llmpipe.spec.read import read_spec

SPEC = """\
version: 1
name: held
stages:
  rows: {{kind: format, data: ./rows.jsonl, split: {{eval: 1, test: 1}}, matrix: {{dedup: [true, false]}}}}
  again: {{kind: format, data: rows.eval}}
  mixed: {{kind: format, sources: [{{data: rows}}, {{data: again}}]}}
  fresh: {{kind: format, data: rows}}
  clean: {{kind: curate, data: rows, steps: [{{step: decontaminate, against: [rows.test]}}]}}
  answers: {{kind: evaluate, models: [./base], data: rows.test}}
  file: {{kind: command, run: x, inputs: {{i: rows.eval, t: rows}}, outputs: {{eval: o.jsonl}}}}
  gguf: {{kind: export, model: ./base, quantize: q4_k_m, calibration: {calibration}}}
"""


def problems(folder: Path, calibration: str) -> list[str]:
    """Compile a spec that calibrates on rows; return what is wrong with it."""
    (folder / "base").mkdir()
    (folder / "base" / "config.json").write_text("{}")
    for name in ("rows.jsonl", "kept.eval.jsonl"):
        (folder / name).write_text('{"instruction": "q", "output": "a"}\n')
    (folder / "spec.yaml").write_text(SPEC.format(calibration=calibration))
    try:
        compile_spec(read_spec(folder / "spec.yaml"))
    except SpecError as error:
        return [problem.message for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("calibration", "told"),
    [
        ("rows.test", ", and rows.test comes from rows@dedup=true.test"),
        ("again", ", and again comes from rows@dedup=true.eval"),
        ("mixed.train", ", and mixed.train comes from rows@dedup=true.eval"),
        ("answers.predictions", ", and answers.predictions comes from rows@dedup=true.test"),
    ],
)
def test_held_out_rows_are_found_behind_other_stages(
    tmp_path: Path, calibration: str, told: str
) -> None:
    """Themselves, formatted once more, mixed with others, or as predictions."""
    message = "stages.gguf.calibration: held-out rows must not shape a model"
    assert set(problems(tmp_path, calibration)) >= {message + told}


@pytest.mark.parametrize(
    "calibration",
    ["rows", "fresh.train", "clean", "rows.rejects", "file.eval", "./kept.eval.jsonl"],
)
def test_other_rows_are_allowed(tmp_path: Path, calibration: str) -> None:
    """Training rows, also if compared with others; files of any name; what a command makes."""
    found = problems(tmp_path, calibration)
    assert not any("held-out" in message for message in found), found


def test_an_empty_reference_is_not_left_out(tmp_path: Path) -> None:
    """Without a matrix, some types would be noise."""
    assert problems(tmp_path, "''") == [
        "stages.gguf.calibration: '' is no stage, no path and no hub id"
    ]
