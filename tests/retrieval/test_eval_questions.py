"""Rows with questions: what a row may say about its question, and what it must say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmpipe.contracts import Artifact
from llmpipe.errors import StageError
from llmpipe.retrieval.eval_questions import Question, QuestionColumns, read_questions


def read(folder: Path, text: str, name: str = "q.jsonl", **columns: str) -> list[Question]:
    """Write a file and read its questions."""
    (folder / name).write_text(text, "utf-8")
    return read_questions(Artifact(folder / name, "records", "", name), QuestionColumns(**columns))


def read_row(folder: Path, row: dict[str, Any], **columns: str) -> Question:
    """Write a row and read its question."""
    (question,) = read(folder, json.dumps(row), **columns)
    return question


@pytest.mark.parametrize("documents", [[], "", None])
def test_a_question_that_no_document_answers_is_not_answerable(
    tmp_path: Path, documents: Any
) -> None:
    """Unless the row says so itself; without a documents column, it counts as answerable."""
    row = {"question": "How far is the moon?", "documents": documents}
    assert not read_row(tmp_path, row).answerable
    told = read_row(tmp_path, {**row, "answerable": True})
    assert (told.answerable, told.documents) == (True, {})
    unknown = read_row(tmp_path, {"question": "How far is the moon?"})
    assert (unknown.answerable, unknown.documents) == (True, None)


def test_a_row_that_asks_nothing_names_the_columns(tmp_path: Path) -> None:
    """The hint shows them as the stage's own `map`."""
    with pytest.raises(StageError, match=r"no column 'question' and is in no known format") as told:
        read_row(tmp_path, {"q": "Why?", "id": 1})
    assert "map: {question: COLUMN" in str(told.value.hint)


CHAT = [
    {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]},
    {"instruction": "Why?", "input": "", "output": "So."},
]


@pytest.mark.parametrize("row", CHAT)
def test_the_answer_of_a_known_format_may_stand_in_a_column(
    tmp_path: Path, row: dict[str, Any]
) -> None:
    """The default is the last turn; a named column must exist."""
    row = {**row, "reference": "Because."}
    assert read_row(tmp_path, row).answer == "So."
    question = read_row(tmp_path, row, answer="reference")
    assert (question.text, question.answer) == ("Why?", "Because.")
    with pytest.raises(StageError, match=r"q\.jsonl:1: no column 'refrence'"):
        read_row(tmp_path, row, answer="refrence")


@pytest.mark.parametrize("word", ["True", "true", "TRUE ", "1"])
def test_a_table_may_spell_true_as_programs_do(tmp_path: Path, word: str) -> None:
    """CSV contains only text; case does not matter."""
    false = {"True": "False", "true": "false", "TRUE ": "FALSE ", "1": "0"}[word]
    table = f"question,answerable\nWhy?,{word}\nHow?,{false}\n"
    assert [q.answerable for q in read(tmp_path, table, "q.csv")] == [True, False]
