"""A file of rows: how many there are, and what their columns mean.

The meaning comes from a known format, a known pair of columns for question and answer, or the
user's options.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from llmpipe.errors import UsageError, did_you_mean
from llmpipe.formats import detect
from llmpipe.formats.records import read_rows

MANY = 1_000_000
"""Number of samples from which fine-tuning is worthwhile, by rule of thumb. Rows are not counted
further."""

PAIRS = (
    ("question", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "response"),
    ("query", "response"),
    ("query", "answer"),
    ("input", "output"),
)
"""Pairs of columns that hold a question and its answer."""

PREFERENCE = {"chosen", "rejected"}
"""Columns of rows with two answers, the better and the worse."""

FileId = tuple[int, int]
"""Device and inode of a file, the same under all its names."""

Named = tuple[str | None, str | None]
"""The columns that the user named for question and answer, if any."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A file of rows. ``written`` is how a spec names it, ``first`` its first row.

    ``question`` and ``answer`` are the columns to name in the spec; a known format needs none.
    """

    written: str
    file: FileId
    count: int
    first: dict[str, Any]
    question: str | None = None
    answer: str | None = None
    folder: str | None = None
    """The folder that it was found in, as a spec names it, if the user named that folder."""

    @property
    def format(self) -> str | None:
        """The known format that the columns show, if any."""
        name = detect(self.first)
        if name == "alpaca" and "output" not in self.first:
            return None  # a pair of columns, which the spec names
        return name if name in ("messages", "sharegpt", "alpaca", "completion") else None

    @property
    def are_examples(self) -> bool:
        """Whether the question and the answer of each row are known."""
        if self.question and self.answer:
            return True
        return self.format not in (None, "completion")

    @property
    def are_told(self) -> bool:
        """Whether the meaning of its columns is known."""
        return self.format is not None or self.answer is not None

    def described(self) -> str:
        """Summarize the contents in one line."""
        what = "example" if self.are_examples else "row"
        how = self.format if self.format and not self.answer else ", ".join(self.first)
        return f"{self.written}: {counted(self.count, what)} ({how})"

    def named(self, question: str | None, answer: str | None) -> Rows:
        """Return the rows with the named columns.

        Raises:
            UsageError: They have no such column.
        """
        for column in filter(None, (question, answer)):
            if column not in self.first:
                message = f"{self.written} has no column {column!r}; it has {', '.join(self.first)}"
                raise UsageError(message, hint=did_you_mean(column, self.first))
        return replace(self, question=question, answer=answer)


def read(path: Path, label: str, written: str, named: Named) -> Rows:
    """Read a file and determine its contents; ``label`` is its name in messages.

    Raises:
        UsageError: It has no rows, or rows that fit no recipe.
        StageError: It cannot be read.
    """
    count, first = 0, None
    for _, row in islice(read_rows(path, label), MANY):
        first = first or row
        count += 1
    if first is None:
        raise UsageError(f"{label} holds no rows")
    if first.keys() >= PREFERENCE:
        raise UsageError(
            f"{label} holds pairs of a chosen and a rejected answer",
            hint="init does not support those: see `rl` in docs/reference/training.md",
        )
    return _with_columns(Rows(written, file_id(path.stat()), count, first), named)


def counted(count: int, noun: str) -> str:
    """Describe a count, which may have stopped at `MANY`."""
    least = "at least " if count >= MANY else ""
    return f"{least}{count:,} {noun}{'' if count == 1 else 's'}"


def file_id(found: os.stat_result) -> FileId:
    """Return the identity of a file."""
    return found.st_dev, found.st_ino


def _with_columns(rows: Rows, named: Named) -> Rows:
    """Set the columns of rows: the named ones, if the rows have them, or the usual ones."""
    question, answer = named
    if answer in rows.first and (question is None or question in rows.first):
        return rows.named(question, answer)
    return _with_usual_columns(rows)


def _with_usual_columns(rows: Rows) -> Rows:
    if rows.format:
        return rows
    columns = {column.lower(): column for column in rows.first}
    for question, answer in PAIRS:
        if question in columns and answer in columns:
            return rows.named(columns[question], columns[answer])
    return rows
