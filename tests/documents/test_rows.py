"""Files of rows: every row is a document."""

from __future__ import annotations

import json

import pytest
from document_files import check_parts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmpipe.documents.convert import Options, convert
from llmpipe.documents.rows import Columns
from llmpipe.errors import StageError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = TEXT | st.none() | st.booleans() | NUMBERS | st.lists(TEXT)


def documents(path, **columns):
    return convert(path, path.name, Options(Columns(**columns) if columns else None))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.fixed_dictionaries({"a": TEXT, "b": VALUES}), max_size=4))
def test_any_rows(tmp_path, rows):
    """Every row is one document with one section."""
    found = documents(write(tmp_path / "a.jsonl", rows), text=["a"])
    assert [document.id for document in found] == [f"a.jsonl#{n + 1}" for n in range(len(rows))]
    assert [document.row for document in found] == [n + 1 for n in range(len(rows))]
    for document in found:
        check_parts(document.text, document.sections)


def test_named_columns(tmp_path):
    """Texts are joined, title and id are taken, and other single values become metadata."""
    row = {
        "h": "Head  line",
        "p": "One.",
        "q": "Two.",
        "n": 7,
        "l": [1],
        "key": "k9",
        "empty": None,
    }
    path = write(tmp_path / "a.jsonl", [row])
    (document,) = documents(path, text=["p", "q"], title="h", id="key")
    assert (document.id, document.title, document.row) == ("a.jsonl#k9", "Head line", 1)
    assert document.text == "p: One.\n\nq: Two."
    assert document.metadata == {"n": 7}
    (document,) = documents(path, text=["p"], metadata=["q"])
    assert (document.title, document.metadata) == ("a 1", {"q": "Two."})


def test_known_formats(tmp_path):
    """The question is the title and the rest the text."""
    rows = [
        {"instruction": "Why?", "input": "", "output": "Because.", "topic": "x"},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "Who?"},
                      {"role": "assistant", "content": "Me."}, {"role": "user", "content": "Really?"},
                      {"role": "assistant", "content": "Yes."}]},
        {"conversations": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "There."}]},
        {"text": "Only words.", "title": "T"},
    ]  # fmt: skip
    found = documents(write(tmp_path / "a.jsonl", rows))
    assert [(document.title, document.text) for document in found] == [
        ("Why?", "Because."), ("Who?", "Me.\n\nReally?\n\nYes."), ("Where?", "There."), ("T", "Only words."),
    ]  # fmt: skip
    assert found[0].metadata == {"topic": "x"}


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json"])
def test_tables_and_arrays(tmp_path, name):
    """CSV, TSV and JSON contain rows too."""
    rows = [{"q": "One?", "a": "1"}, {"q": "Two?", "a": "2"}]
    mark = "\t" if name.endswith("tsv") else ","
    table = "\n".join(mark.join(row) for row in [rows[0], *(r.values() for r in rows)])
    (tmp_path / name).write_text(json.dumps(rows) if name == "a.json" else table)
    found = documents(tmp_path / name, text=["a"], title="q")
    assert [(document.id, document.title) for document in found] == [
        (f"{name}#1", "One?"), (f"{name}#2", "Two?"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "columns", "told", "hint"),
    [
        ({"q": "a"}, {}, "which column contains the text? The row has 'q'", "columns: {text"),
        ({"body": "a"}, {"text": ["bodi"]}, "no column 'bodi'; the row has 'body'", "did you mean"),
        ({"b": "a"}, {"text": ["b"], "title": "t"}, "no column 't'", ""),
        ({"b": "a", "i": ""}, {"text": ["b"], "id": "i"}, "column 'i' is empty", ""),
        ({"b": ["a"]}, {"text": ["b"]}, "column 'b' must hold text, not a list", ""),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit(tmp_path, row, columns, told, hint):
    """The message has the row, its columns, and what to do."""
    path = write(tmp_path / "a.jsonl", [row])
    with pytest.raises(StageError) as caught:
        documents(path, **columns)
    assert caught.value.message.startswith(f"a.jsonl:1: {told}")
    assert hint in (caught.value.hint or "")


def test_a_row_that_says_nothing_is_a_blank_document(tmp_path):
    """The caller counts and drops it."""
    path = write(tmp_path / "a.jsonl", [{"text": " "}, {"text": "x"}])
    assert [document.text.strip() for document in documents(path)] == ["", "x"]


@pytest.mark.parametrize(
    ("encoding", "is_guess"),
    [
        ("cp1252", True),
        ("utf-16-le", True),
        ("cp1250", True),
        ("utf-8-sig", False),
        ("utf-16", False),
    ],
)
def test_tables_as_spreadsheets_save_them(tmp_path, encoding, is_guess):
    """In a regional encoding, or in UTF-16; a guess is reported."""
    path, heard = tmp_path / "a.csv", []
    text = "sep=;\r\ntitle;text\r\nLöhne;Größe für 40 €, Größe\r\n"
    path.write_bytes(text.encode(encoding))
    (found,) = convert(path, "a.csv", Options(), heard.append)
    assert (found.title, found.text) == ("Löhne", "Größe für 40 €, Größe")
    assert [remark[:23] for remark in heard] == ["neither UTF-8 nor marke"] * is_guess


def test_rows_that_are_no_text(tmp_path):
    """A binary file with the suffix of a CSV file is named; JSON is UTF-8."""
    (tmp_path / "a.csv").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    with pytest.raises(StageError, match=r"^a\.csv is a binary file, not text"):
        documents(tmp_path / "a.csv")
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "\xe9"}\n')
    with pytest.raises(StageError, match=r"^a\.jsonl:1: not UTF-8 text"):
        documents(tmp_path / "a.jsonl")
