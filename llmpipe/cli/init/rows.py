"""A file of rows: how many there are, and what their columns mean.

A known format, a known pair of columns for a question and its answer, or the user's options say
what the columns mean.
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
"""From so many samples on, fine-tuning on them is worth its while, by the rule of thumb; no file
of rows is counted further."""

PAIRS = (
    ("question", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "response"),
    ("query", "response"),
    ("query", "answer"),
    ("input", "output"),
)
"""Pairs of columns that mean a question and its answer."""

PREFERENCE = {"chosen", "rejected"}
"""Columns of rows that hold two answers, the better and the worse."""

FileId = tuple[int, int]
"""Device and inode of a file: the same however it is named."""

Named = tuple[str | None, str | None]
"""The columns that were named for the question and the answer, if any."""


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
    """The folder that it was found in, as a spec names it, where that folder was named."""

    @property
    def format(self) -> str | None:
        """The known format that the columns show, if any."""
        name = detect(self.first)
        if name == "alpaca" and "output" not in self.first:
            return None  # a pair of columns, which the recipe names
        return name if name in ("messages", "sharegpt", "alpaca", "completion") else None

    @property
    def are_examples(self) -> bool:
        """Whether a question and its answer are known in each."""
        if self.question and self.answer:
            return True
        return self.format not in (None, "completion")

    @property
    def are_told(self) -> bool:
        """Whether it is known what the columns hold."""
        return self.format is not None or self.answer is not None

    def described(self) -> str:
        """Summarize the contents in one line."""
        what = "example" if self.are_examples else "row"
        how = self.format if self.format and not self.answer else ", ".join(self.first)
        return f"{self.written}: {counted(self.count, what)} ({how})"

    def named(self, question: str | None, answer: str | None) -> Rows:
        """Return the rows with their columns named.

        Raises:
            UsageError: they have no such column.
        """
        for column in filter(None, (question, answer)):
            if column not in self.first:
                message = f"{self.written} has no column {column!r}; it has {', '.join(self.first)}"
                raise UsageError(message, hint=did_you_mean(column, self.first))
        return replace(self, question=question, answer=answer)


def read(path: Path, label: str, written: str, named: Named) -> Rows:
    """Read a file and determine its contents; ``label`` names it in messages.

    Raises:
        UsageError: it has no rows, or rows that fit no recipe.
        StageError: it cannot be read.
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
    """Name the columns of rows: as they were named, where they have them, or by what is usual."""
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
