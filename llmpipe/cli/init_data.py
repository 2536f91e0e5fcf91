"""What somebody has to make a recipe of, told by looking at it: documents, or rows, and how many.

Files are told apart as the stages will: by the ends of their names, and rows by their columns. A
row with a question and its answer is an example; one that holds a text alone is a document.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from llmpipe.documents.convert import FORMATS
from llmpipe.errors import StageError, UsageError, did_you_mean
from llmpipe.formats import detect
from llmpipe.formats.records import read_rows
from llmpipe.graph.patterns import trouble_with
from llmpipe.graph.sources import package_path
from llmpipe.paths import expanded, is_path
from llmpipe.patterns import EVERYTHING, escaped, is_pattern, matching_files, split_pattern

MANY = 1_000_000
"""From so many samples on, fine-tuning on them is worth its while, by the rule of thumb; no file
of rows is counted further."""

SCHEMA = "spec.schema.json"
"""The file beside a spec by which editors check it: nobody's data."""

PAIRS = (
    ("question", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "response"),
    ("query", "response"),
    ("query", "answer"),
    ("input", "output"),
)
"""Columns that mean a question and its answer wherever they stand together."""

PREFERENCE = {"chosen", "rejected"}
"""Columns of rows that hold two answers, the better and the worse."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A file of rows. ``written`` is how a spec names it, ``first`` its first row.

    ``question`` and ``answer`` are the columns to name in the spec; a known format needs none.
    """

    written: str
    count: int
    first: dict[str, Any]
    question: str | None = None
    answer: str | None = None

    @property
    def format(self) -> str | None:
        """The known format that the columns show, if any."""
        return detect(self.first)

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

    def named(self, question: str | None, answer: str | None) -> Rows:
        """Give the rows with their columns named.

        Raises:
            UsageError: they have no such column.
        """
        for column in filter(None, (question, answer)):
            if column not in self.first:
                hint = did_you_mean(column, self.first) or f"columns: {', '.join(self.first)}"
                raise UsageError(f"{self.written} has no column {column!r}", hint=hint)
        return replace(self, question=question, answer=answer)


@dataclass(slots=True)
class Data:
    """All that was found."""

    documents: dict[str, int] = field(default_factory=dict)
    """How many files of documents each path or pattern means, as a spec writes it."""
    rows: list[Rows] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    """Files that cannot be used, and why."""
    is_outside: bool = False
    """Whether some of it lies outside of the spec's folder."""

    @property
    def examples(self) -> int:
        """How many rows hold a question and its answer."""
        return sum(rows.count for rows in self.rows if rows.are_examples)

    @property
    def count(self) -> int:
        """How many samples there are: files of documents, and rows."""
        return sum(self.documents.values()) + sum(rows.count for rows in self.rows)

    def described(self) -> Iterator[str]:
        """Say line by line what there is."""
        for written, count in self.documents.items():
            yield f"{written}: {_counted(count, 'document')}"
        for rows in self.rows:
            what = "example" if rows.are_examples else "row"
            how = rows.format if rows.format and not rows.answer else ", ".join(rows.first)
            yield f"{rows.written}: {_counted(rows.count, what)} ({how})"
        yield from (f"passed over: {reason}" for reason in self.passed_over)


def look(texts: Sequence[str], folder: Path) -> Data:
    """Look at files, folders, patterns and ``pkg://`` addresses for a spec that lies in ``folder``.

    Raises:
        UsageError: one of them leads nowhere, or to nothing that can be used.
        StageError: a file of rows that is named cannot be read.
    """
    data = Data()
    for text in dict.fromkeys(texts):
        _add(data, text, folder)
    return data


def written_path(text: str, folder: Path) -> str:
    """Give a path as a spec in ``folder`` writes it; ``text`` starts where we stand.

    It is relative to the spec, but for one that leads out of its folder and is not given so.

    Raises:
        UsageError: its name is no text that a spec can hold.
    """
    path, here = expanded(text), Path(os.path.realpath(folder))
    # Links on the way are followed, one at the end is meant as it is.
    real = Path(os.path.realpath(path.parent), path.name) if path.name else path.resolve()
    if path.is_absolute() and not real.is_relative_to(here):
        written = str(path)
    else:
        written = os.path.relpath(real, here)
        written = written if is_path(written) else f"./{written}"
    try:
        written.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{text!r}: the name is not UTF-8", hint="rename it") from None
    return written


def _add(data: Data, text: str, folder: Path) -> None:
    """Add what one path means."""
    if text.startswith("pkg://"):
        found = package_path(text)
        if isinstance(found, str):
            raise UsageError(f"{text}: {found}", hint="install the package first, with pip")
        path, written = found, text
    else:
        path, written = expanded(text), ""
        if not os.path.lexists(path) and is_pattern(text):
            _add_pattern(data, text, folder)
            return
        written = written_path(text, folder)
        _note_outside(data, path, folder)
    if path.is_dir():
        _add_folder(data, text, path, written)
    elif path.exists():
        _add_file(data, text, path, written)
    else:
        raise UsageError(f"there is no file or folder {text}", hint=_near(path))


def _near(path: Path) -> str | None:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist either"
    return did_you_mean(path.name, islice((p.name for p in path.parent.iterdir()), 1000))


def _note_outside(data: Data, path: Path, folder: Path) -> None:
    real = Path(os.path.realpath(path))
    data.is_outside = data.is_outside or not real.is_relative_to(os.path.realpath(folder))


def _add_pattern(data: Data, text: str, folder: Path) -> None:
    root, pattern = split_pattern(str(expanded(text)))
    trouble = trouble_with(text, Path(root), pattern)
    if trouble:
        raise UsageError(trouble[0], hint=trouble[1])
    names = sorted(name for name, _ in matching_files(Path(root), pattern))
    tables = [name for name in names if _is_table(name)]
    if tables and len(tables) < len(names):
        raise UsageError(
            f"{text} fits documents and files of rows",
            hint="give each a pattern of its own, by the end of the names: --data './x/*.md'",
        )
    _note_outside(data, Path(root), folder)
    base = written_path(root, folder)
    if not tables:
        data.documents[_joined(escaped(base), pattern)] = len(names)
    for name in tables:
        path = Path(root, name)
        _add_file(data, str(path), path, _joined(base, name))


def _add_folder(data: Data, text: str, folder: Path, written: str) -> None:
    below = (name for name, _ in matching_files(folder, EVERYTHING))
    names = sorted(name for name in below if Path(name).name != SCHEMA)
    endings = Counter(Path(name).suffix for name in names)
    known = [name for name in names if Path(name).suffix.lower() in FORMATS]
    found = Data()
    for ending, count in sorted(Counter(Path(n).suffix for n in known if not _is_table(n)).items()):
        found.documents[_joined(escaped(written), f"**/*{ending}")] = count
    for name in filter(_is_table, known):
        try:
            _add_file(found, name, folder / name, _joined(written, name))
        except (StageError, UsageError) as error:
            found.passed_over.append(error.message)
    _pass_over_the_untold(found)
    if not found.count:
        there = ", ".join(f"{n} {ending or 'without one'}" for ending, n in endings.most_common(5))
        raise UsageError(
            f"{text} holds no documents and no rows",
            hint=f"files there, by the ends of their names: {there or 'none'}\n"
            f"read are: {' '.join(FORMATS)}",
        )
    data.documents |= found.documents
    data.rows += found.rows
    data.passed_over += found.passed_over


def _pass_over_the_untold(found: Data) -> None:
    """Leave out files of rows whose columns say nothing (settings, say) where others do."""
    told = [rows for rows in found.rows if rows.are_told]
    if told or found.documents:
        for rows in found.rows:
            if rows not in told:
                columns = ", ".join(rows.first)
                found.passed_over.append(f"{rows.written}: columns that say nothing: {columns}")
        found.rows = told


def _add_file(data: Data, label: str, path: Path, written: str) -> None:
    if not _is_table(path.name):
        if path.suffix.lower() not in FORMATS and b"\0" in _beginning(path):
            raise UsageError(f"{label} is no text", hint=f"read are: {' '.join(FORMATS)}")
        data.documents[written] = 1
        return
    count, first = 0, None
    for _, row in islice(read_rows(path, label), MANY):
        first = first or row
        count += 1
    if first is None:
        raise UsageError(f"{label} holds no rows")
    if first.keys() >= PREFERENCE:
        raise UsageError(
            f"{label} holds pairs of a chosen and a rejected answer",
            hint="init makes no recipe of those: see `rl` in docs/reference/training.md",
        )
    data.rows.append(_with_usual_columns(Rows(written, count, first)))


def _with_usual_columns(rows: Rows) -> Rows:
    if rows.format:
        return rows
    columns = {column.lower(): column for column in rows.first}
    for question, answer in PAIRS:
        if question in columns and answer in columns:
            return rows.named(columns[question], columns[answer])
    return rows


def _is_table(name: str) -> bool:
    known = FORMATS.get(Path(name).suffix.lower())
    return known is not None and known.module == "rows"


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4096)


def _joined(base: str, name: str) -> str:
    return f"./{name}" if base == "." else f"{base.rstrip('/')}/{name}"


def _counted(count: int, noun: str) -> str:
    least = "at least " if count >= MANY else ""
    return f"{least}{count:,} {noun}{'' if count == 1 else 's'}"
