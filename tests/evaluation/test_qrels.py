"""Judgments and collections in TREC's and BEIR's formats: round trips, and errors by line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.errors import StageError
from llmpipe.evaluation.qrels import (
    Passage,
    line_of,
    read_beir_corpus,
    read_beir_qrels,
    read_beir_queries,
    read_qrels,
    read_trec_qrels,
)

IDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
QRELS = st.dictionaries(IDS, st.dictionaries(IDS, st.integers(-2, 4), min_size=1), max_size=4)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to write to repeatedly."""
    return tmp_path_factory.mktemp("qrels") / "file"


def test_trec(file: Path) -> None:
    """Spaces of any width, blank lines, Windows line endings; tabs if ids contain spaces."""
    file.write_text("1 0 a 1\r\n1  0   b\t0\n\n2 Q0 a 2\n".replace("\t", " "))
    assert read_trec_qrels(file) == {"1": {"a": 1, "b": 0}, "2": {"a": 2}}
    file.write_text("1\t0\tmy file.md\t1\n")
    assert read_trec_qrels(file) == {"1": {"my file.md": 1}}


def test_beir(file: Path) -> None:
    """A header, then tabs; questions and documents one per line, with additional keys."""
    file.write_text("query-id\tcorpus-id\tscore\nq1\tmy doc\t1\nq1\tother\t0\n")
    assert read_beir_qrels(file) == {"q1": {"my doc": 1, "other": 0}}
    rows = [{"_id": "q1", "text": "Why?", "metadata": {"x": 1}}, {"_id": "q2", "text": "Ü"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_beir_queries(file) == {"q1": "Why?", "q2": "Ü"}
    file.write_text(json.dumps({"_id": "d", "title": "T", "text": "x"}) + "\n")
    assert list(read_beir_corpus(file)) == [Passage("d", "x", "T")]


@given(QRELS)
def test_what_is_written_is_read(file: Path, qrels: dict[str, dict[str, int]]) -> None:
    """In both formats, whatever the ids."""
    rows = [(q, d, r) for q, judged in qrels.items() for d, r in judged.items()]
    file.write_text("".join(f"{q} 0 {d} {r}\n" for q, d, r in rows), "utf-8")
    assert read_trec_qrels(file) == qrels
    lines = ["query-id\tcorpus-id\tscore", *(f"{q}\t{d}\t{r}" for q, d, r in rows)]
    file.write_text("\n".join(lines), "utf-8")
    assert read_beir_qrels(file) == qrels


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_trec_qrels, "1 0 a 1\n1 a 1\n", ":2: not `query iteration document relevance`"),
        (read_trec_qrels, "1 0 a yes\n", ":1: the relevance 'yes' is not an integer"),
        (read_trec_qrels, "1 0 a 1\n\n1 0 a 2\n", ":3: 'a' is judged twice for '1'"),
        (read_beir_qrels, "q\td\t1\n", ":1: the header must be"),
        (read_beir_qrels, "query-id\tcorpus-id\tscore\nq d 1\n", ":2: not three columns"),
        (read_beir_qrels, "query-id\tcorpus-id\tscore\nq\td\t1.5\n", ":2: the relevance '1.5'"),
        (
            read_beir_queries,
            '{"_id": "1", "text": "a"}\n{"_id": "1", "text": "b"}',
            ":2: the id '1'",
        ),
        (read_beir_queries, '{"id": "1", "text": "a"}', ":1: not an entry of a collection"),
        (read_beir_queries, '{"_id": "1"', ":1: not an entry of a collection"),
        (read_beir_queries, "[]", ":1: not an entry of a collection"),
    ],
)
def test_a_wrong_line_is_named(
    read: Callable[[Path], Any], text: str, message: str, file: Path
) -> None:
    """By file, line, and what is wrong with it."""
    file.write_text(text)
    with pytest.raises(StageError) as caught:
        read(file)
    assert f"{file}{message}" in caught.value.message


def test_a_file_that_is_no_text_or_not_there(tmp_path: Path) -> None:
    """Neither ends in a traceback."""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for name in ("bytes", "missing"):
        for read in (read_trec_qrels, read_beir_qrels, read_beir_queries):
            with pytest.raises(StageError, match="cannot be read"):
                read(tmp_path / name)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(file: Path, text: str) -> None:
    """The result is either judgments or an error message."""
    file.write_text(text.replace("\ud800", ""), "utf-8", errors="replace")
    for read in (read_trec_qrels, read_beir_qrels, read_beir_queries):
        try:
            found: Any = read(file)
        except StageError as error:
            found = error
        if isinstance(found, StageError):
            assert str(file) in found.message
        else:
            assert isinstance(found, dict)


def test_both_forms_are_told_apart(file: Path) -> None:
    """By BEIR's header; the line of a judgment is found in both."""
    file.write_text("\nb 0 a 1\n1 0 b 1\n2 0 b 1\n")
    assert read_qrels(file) == {"b": {"a": 1}, "1": {"b": 1}, "2": {"b": 1}}
    assert (line_of(file, "1", "b"), line_of(file, "2", "b"), line_of(file, "2", "a")) == (3, 4, 0)
    file.write_text("query-id\tcorpus-id\tscore\n1\ta b\t1\n")
    assert read_qrels(file) == {"1": {"a b": 1}}
    assert line_of(file, "1", "a b") == 2
    file.write_text("")
    assert read_qrels(file) == {}
