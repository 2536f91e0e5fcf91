"""Columns that a spec names are looked for in the first rows of its files, before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from workspace import Workspace

from llmpipe.formats.first_rows import LOOKED_AT, Named, absent

HEAD = "version: 1\nname: columns\nstages:\n"
ROWS = [{"question": f"q{i}", "answer": f"a{i}", "topic": i} for i in range(20)]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def told(workspace: Workspace, stages: str) -> dict[str, Any]:
    """Return what `validate` says of a spec with these stages."""
    workspace.write(HEAD + stages)
    answer: dict[str, Any] = json.loads(workspace.call("validate", "spec.yaml", "--json").stdout)
    return answer


FORMAT = (
    "  a: {kind: format, data: ./rows.jsonl, to: messages, map: {user: question, assistant: %s}}\n"
)


@pytest.mark.parametrize(
    ("stage", "field", "hint"),
    [
        (FORMAT % "anser", "map.assistant", "did you mean 'answer'?"),
        (FORMAT % "x", "map.assistant", "there are: question, answer, topic"),
        (
            "  a: {kind: format, to: messages, sources: [{data: ./rows.csv, map: {user: q, assistant: answer}}]}\n",
            "sources.0.map.user",
            "there are: question, answer, topic",
        ),
        (
            "  a: {kind: format, data: ./rows.jsonl, to: messages, split: {eval: 2, group: topics}, map: {user: question, assistant: answer}}\n",
            "split.group",
            "did you mean 'topic'?",
        ),
        (
            "  a: {kind: format, data: ./rows.jsonl, to: messages, map: {user: question, assistant: answer, system: rules}}\n",
            "map.system",
            "there are: question, answer, topic",
        ),
        ("  a: {kind: ingest, paths: [./rows.csv], columns: {text: [answr]}}\n", "columns.text.0", "did you mean 'answer'?"),
        ("  a: {kind: ingest, paths: ['./*.jsonl'], columns: {text: [answer], title: titel}}\n", "columns.title", "there are: "),
        (
            "  a: {kind: generate, method: evol-instruct, seeds: ./rows.jsonl, count: 1, map: {user: qestion}, teacher: {engine: openai, model: m, base_url: http://h/v1}}\n",
            "map.user",
            "did you mean 'question'?",
        ),
    ],
)  # fmt: skip
def test_a_column_that_no_row_has(workspace: Workspace, stage: str, field: str, hint: str) -> None:
    """It is told at its field by `validate`; a run failed with it when its turn came."""
    write_rows(workspace.folder / "rows.jsonl", ROWS)
    table = "".join(f"{row['question']},{row['answer']},{row['topic']}\n" for row in ROWS)
    (workspace.folder / "rows.csv").write_text("question,answer,topic\n" + table)
    (problem,) = told(workspace, stage)["problems"]
    assert problem["message"].startswith(f"stages.a.{field}: no row of rows.")
    assert problem["hint"].startswith(hint)
    assert problem["line"] == 4
    refused = workspace.call("run", "spec.yaml")
    assert refused.returncode == 2
    assert not (workspace.folder / ".llmpipe" / "runs").exists()


def test_columns_that_are_there(workspace: Workspace) -> None:
    """In whichever of the first rows; nothing is said, and nothing of what stages make."""
    write_rows(workspace.folder / "rows.jsonl", [*ROWS, {**ROWS[0], "rules": "be brief"}])
    stages = """\
  a: {kind: format, data: ./rows.jsonl, to: messages, map: {user: question, assistant: answer, system: rules}}
  c: {kind: command, run: "echo > ${outputs.o}", outputs: {o: o.jsonl}}
  b: {kind: format, data: c, to: messages, map: {user: what, assistant: ever}}
"""
    answer = told(workspace, stages)
    assert (answer["problems"], answer["warnings"]) == ([], [])


def test_a_column_that_may_come_later(workspace: Workspace) -> None:
    """Of more rows than are looked at it is a warning where some row must have it."""
    rows = [{"question": f"q{i}", "answer": "a"} for i in range(LOOKED_AT + 1)]
    write_rows(workspace.folder / "rows.jsonl", rows)
    text = FORMAT.replace("assistant: %s", "assistant: answer, system: rules")
    answer = told(workspace, text)
    assert answer["sound"]
    (warning,) = answer["warnings"]
    assert f"none of the first {LOOKED_AT} rows of rows.jsonl has a column 'rules'" in warning
    assert not told(workspace, FORMAT % "reply")["sound"]


@pytest.mark.parametrize("content", [b"", b"not json\n", b"\xff\xfe{", b'["a"]\n', b"\n\n"])
def test_what_cannot_be_read_is_for_the_stage(tmp_path: Path, content: bytes) -> None:
    """Nothing is known of its columns."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    for file in (str(path), str(tmp_path), str(tmp_path / "none"), "stage", None):
        assert list(absent([file], [Named(("map",), "x")])) == []
