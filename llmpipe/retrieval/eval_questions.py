"""Read questions with their labels, and find the documents of an index that answer them.

A row has a question and, optionally, a reference answer, whether the documents contain an answer,
and which documents do. A document is named by its id or, if it was made from a row, by the part of
its id after ``#``. A row that names no document is answered by the document made from that same
row, if the questions' file was also ingested. This fits a collection of questions and answers of
which only the answers became documents.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec

from llmpipe.contracts import Artifact
from llmpipe.errors import StageError
from llmpipe.evaluation.qrels import line_of, read_beir_queries, read_qrels
from llmpipe.formats import detect, read_conversation
from llmpipe.formats.records import read_rows
from llmpipe.formats.row import RowError, missing_column, text_column
from llmpipe.retrieval.passages import Passages

NAMED = 3
"""How many missing documents a message names."""

Judged = dict[str, int]
"""Relevance by document; above 0 means relevant."""


class QuestionColumns(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """Which columns of a row contain the question and its labels."""

    question: str | None = None
    """Column with the question. Default: `question`, or the user's turn of a row in a known
    format."""
    answer: str | None = None
    """Column with the reference answer. Default: `answer`, or the last turn of a row in a known
    format."""
    answerable: str | None = None
    """Column with true or false: whether the documents contain an answer. Default: `answerable`; a
    row without that column counts as answerable unless its documents column is empty."""
    documents: str | None = None
    """Column that names the documents which answer the question: one or a list, each by its id or
    by the part of its id after `#`; empty if there are none. Default: `documents`; without that
    column, the document made from the same row."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question with its labels.

    Attributes:
        id: the id of a BEIR question, or the row number.
        place: where the question is in its file, for messages.
        documents: relevance by document as named in the file; None if the row names none.
    """

    id: str
    place: str
    text: str
    answer: str = ""
    answerable: bool = True
    documents: Mapping[str, int] | None = None


def read_questions(source: Artifact, columns: QuestionColumns | None) -> list[Question]:
    """Read rows with questions and labels.

    Raises:
        StageError: a row cannot be read, a question is empty, or there are no rows.
    """
    questions = []
    for number, (line, row) in enumerate(read_rows(source.path, source.label), 1):
        place = f"{source.label}:{line}"
        try:
            questions.append(_question(row, str(number), place, columns or QuestionColumns()))
        except RowError as error:
            raise StageError(f"{place}: {error.message}", hint=error.hint) from None
    if not questions:
        raise StageError(f"{source.label}: there are no questions")
    return questions


def read_judged_questions(source: Artifact, qrels: Artifact) -> tuple[list[Question], int]:
    """Read BEIR questions and judgments; return them and the number of unknown judged questions.

    Raises:
        StageError: a file has the wrong format, a question is empty, or none is judged.
    """
    texts, judged = read_beir_queries(source.path), read_qrels(qrels.path)
    for name, text in texts.items():
        if not text.strip():
            raise StageError(f"{source.label}: the question {name!r} is empty")
    questions = [
        Question(id=name, place=source.label, text=text, documents=judged.get(name, {}))
        for name, text in texts.items()
    ]
    if not judged.keys() & texts.keys():
        example = next(iter(judged), None)
        raise StageError(
            f"{qrels.label} judges none of the questions of {source.label}",
            hint=f"it is about {example!r}, for one" if example else "it is empty",
        )
    return questions, len(judged.keys() - texts.keys())


class AnsweringDocuments:
    """Finds the documents of an index that answer the questions of a file."""

    def __init__(
        self, passages: Passages, index: str, questions: Artifact, qrels: Artifact | None = None
    ) -> None:
        """Read the ids of the documents; ``index`` is what messages call the index."""
        self._passages = passages
        self._index = index
        self._questions = questions
        self._qrels = qrels
        self._ids = frozenset(passages.document_ids())
        self._short_names: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self._ids):
            if "#" in name:
                self._short_names[name.partition("#")[2]].append(name)

    def of_each(self, questions: Iterable[Question], *, required: bool) -> list[Judged]:
        """Return for each question the relevance of documents, by their ids in the index.

        With ``required``, an answerable question that names no document must have one made from
        its row.

        Raises:
            StageError: the index lacks a document, or has several of the same short name.
        """
        judged: list[Judged] = []
        missing: list[tuple[Question, str | None]] = []
        for question in questions:
            judged.append({})
            if question.documents is None:
                own = self._documents_by_row.get(int(question.id))
                if own:
                    judged[-1][own] = 1
                elif required and question.answerable:
                    missing.append((question, None))
                continue
            for name, gain in question.documents.items():
                found = self._find(name, question)
                if found:
                    judged[-1][found] = max(gain, judged[-1].get(found, gain))
                elif gain > 0:  # an irrelevant document may be missing
                    missing.append((question, name))
        if missing:
            raise self._missing(missing)
        return judged

    @cached_property
    def _documents_by_row(self) -> Mapping[int, str]:
        """Documents made from the questions' own file, by row."""
        with self._questions.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return self._passages.documents_by_row(digest)

    def _find(self, name: str, question: Question) -> str | None:
        if name in self._ids:
            return name
        found = self._short_names.get(name, [])
        if len(found) > 1:
            raise StageError(
                f"{self._place(question, name)}: several documents of {self._index} are called "
                f"{name!r}: {', '.join(found[:NAMED])}",
                hint="name the document by its whole id",
            )
        return found[0] if found else None

    def _missing(self, missing: Sequence[tuple[Question, str | None]]) -> StageError:
        """Return the error for missing documents; a name of None stands for the row's own."""
        question, name = missing[0]
        if name is None:
            more = f" ({len(missing)} such rows)" if len(missing) > 1 else ""
            return StageError(
                f"{question.place}: no document of {self._index} was made from this row{more}",
                hint="name the column that says which documents answer: map: {documents: COLUMN}; "
                "or use the file that was ingested as questions. `ingest` skips rows without text "
                "and, unless it says dedup: false, copies of an answer",
            )
        place = self._place(question, name)
        named = list(dict.fromkeys(repr(name) for _, name in missing if name is not None))
        others = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
        example = min(self._ids, default="")
        return StageError(
            f"{place}: {self._index} has no document {', '.join(named[:NAMED])}{others}",
            hint=f"its documents have ids like {example!r}; one made from a row may be named by "
            "the part after `#`. Copies of a text are skipped unless ingest says dedup: false",
        )

    def _place(self, question: Question, name: str) -> str:
        """Return where a document is named, for messages."""
        if self._qrels is None:
            return question.place
        return f"{self._qrels.label}:{line_of(self._qrels.path, question.id, name)}"


def _question(
    row: Mapping[str, Any], number: str, place: str, columns: QuestionColumns
) -> Question:
    text, answer = _question_and_answer(row, columns)
    documents = _documents(row, columns.documents or "documents", columns.documents is not None)
    answerable = documents is None or bool(documents)
    if columns.answerable or "answerable" in row:
        answerable = _boolean(row, columns.answerable or "answerable")
    return Question(
        id=number,
        place=place,
        text=text,
        answer=answer,
        answerable=answerable,
        documents={} if not answerable else documents,
    )


def _question_and_answer(row: Mapping[str, Any], columns: QuestionColumns) -> tuple[str, str]:
    """Return the question and the reference answer, which may be empty."""
    if columns.answer and columns.answer not in row:
        raise missing_column(row, columns.answer)
    if columns.question or "question" in row:
        text = text_column(row, columns.question or "question")
        return text, text_column(row, columns.answer or "answer", required=False)
    format_ = detect(row)
    if format_ is None:
        has = ", ".join(map(repr, row)) or "no columns"
        raise RowError(
            f"the row has no column 'question' and is in no known format; it has {has}",
            hint="name the columns: map: {question: COLUMN, documents: COLUMN}",
        )
    if format_ == "completion":
        raise RowError("raw text has no question", hint="name the column: map: {question: COLUMN}")
    chat = read_conversation(row)
    asked = chat.prompt()[-1].text
    if columns.answer:
        return asked, text_column(row, columns.answer, required=False)
    return asked, chat.turns[-1].text


def _boolean(row: Mapping[str, Any], column: str) -> bool:
    if column not in row:
        raise missing_column(row, column)
    truths = {"true": True, "false": False, "1": True, "0": False}
    text = str(row[column]).strip().casefold()  # a CSV file contains only text
    if text not in truths:
        raise RowError(f"column {column!r} must say true or false, not {row[column]!r}")
    return truths[text]


def _documents(row: Mapping[str, Any], column: str, required: bool) -> dict[str, int] | None:
    if column not in row:
        if required:
            raise missing_column(row, column)
        return None
    value = row[column]
    names = value if isinstance(value, list) else [] if value in (None, "") else [value]
    if any(isinstance(name, bool) or not isinstance(name, str | int) for name in names):
        raise RowError(f"column {column!r} must name documents, one or a list of them")
    return {str(name): 1 for name in names}
