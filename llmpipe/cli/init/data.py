"""Inspect the data for a spec: documents or rows, and how many.

Files are classified as the stages do: by extension, and rows by their columns. A row with a
question and its answer is an example; one with only a text is a document.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from glob import escape
from itertools import islice
from pathlib import Path

from llmpipe.cli.init.rows import FileId, Named, Rows, counted, file_id, read
from llmpipe.documents import foreign
from llmpipe.documents.convert import FORMATS
from llmpipe.documents.foreign import ENDINGS, named_endings
from llmpipe.errors import StageError, UsageError, did_you_mean
from llmpipe.graph.patterns import trouble_with
from llmpipe.graph.sources import package_path
from llmpipe.paths import expanded, is_path
from llmpipe.patterns import (
    EVERYTHING,
    SPECIAL,
    escaped,
    is_pattern,
    matching_files,
    split_pattern,
)
from llmpipe.stages.ingest_files import document_id

NO_FILE: FileId = (-1, -1)
"""Placeholder for a file that is still to be written."""

SCHEMA = "spec.schema.json"
"""The file next to a spec by which editors check it; it is not data."""


@dataclass(slots=True)
class Data:
    """All data found. A file that is found twice, under any name, counts once."""

    documents: dict[str, dict[FileId, str]] = field(default_factory=dict)
    """The document files of each path or pattern, as a spec writes it, each with its extension."""
    rows: list[Rows] = field(default_factory=list)
    passed_over: dict[FileId, str] = field(default_factory=dict)
    """Files that cannot be used, and why."""
    others: Counter[str] = field(default_factory=Counter)
    """Files that are neither documents nor rows, by extension."""
    columns: dict[str, None] = field(default_factory=dict)
    """All columns of all files of rows, skipped files included."""
    unread: dict[str, FileId] = field(default_factory=dict)
    """Files of folders that `ingest` must not read, by the ids of their documents."""
    is_outside: bool = False
    """Whether some of it is outside the spec's folder."""

    @property
    def examples(self) -> int:
        """How many rows hold a question and its answer."""
        return sum(rows.count for rows in self.rows if rows.are_examples)

    @property
    def count(self) -> int:
        """The number of samples: document files, and rows."""
        return len(self._files_of_documents()) + sum(rows.count for rows in self.rows)

    def add(self, found: Data) -> None:
        """Add newly found data that is not here yet."""
        here = self._files_of_documents()
        new = found.documents.items()
        self.documents |= {written: files for written, files in new if not files.keys() <= here}
        self.unread |= found.unread
        taken = {rows.file for rows in self.rows}
        for rows in found.rows:
            if rows.file not in taken:
                self.rows.append(rows)
                taken.add(rows.file)
        self.passed_over |= found.passed_over
        self.others += found.others
        self.columns |= found.columns
        self.is_outside = self.is_outside or found.is_outside

    def described(self) -> Iterator[str]:
        """Describe the data line by line."""
        for written, files in self.documents.items():
            more = f" ({named_endings(Counter(files.values()))})" if len(files) > 1 else ""
            yield f"{written}: {counted(len(files), 'document')}{more}"
        for rows in self.rows:
            yield rows.described()
        taken = {rows.file for rows in self.rows}
        for file, reason in self.passed_over.items():
            if file not in taken:
                yield f"skipped: {reason}"
        if self.others:
            yield f"skipped, of other kinds: {named_endings(self.others)}"

    def excluded(self) -> list[str]:
        """Return patterns that keep `ingest` from reading skipped files of folders."""
        taken = {rows.file for rows in self.rows}
        return sorted(escape(id_) for id_, file in self.unread.items() if file not in taken)

    def _files_of_documents(self) -> set[FileId]:
        return set().union(*self.documents.values())


def look(
    texts: Sequence[str], folder: Path, question: str | None = None, answer: str | None = None
) -> Data:
    """Inspect files, folders, patterns and ``pkg://`` addresses for a spec in ``folder``.

    ``question`` and ``answer`` are columns that the user named; rows that have them are read by
    them.

    Raises:
        UsageError: A path does not exist or holds nothing usable, or no file of rows has the
            columns.
        StageError: A named file of rows cannot be read.
    """
    data = Data()
    for text in texts:
        data.add(_found(text, folder, (question, answer)))
    if answer and not any((rows.question, rows.answer) == (question, answer) for rows in data.rows):
        raise _no_such_columns(data.columns, [c for c in (question, answer) if c])
    return data


def _no_such_columns(columns: Mapping[str, None], named: Sequence[str]) -> UsageError:
    missing = next((column for column in named if column not in columns), None)
    if not columns:
        message, hint = f"no file has rows that could have a column {named[0]!r}", None
    elif missing:
        message = f"no file of rows has a column {missing!r}; there are {', '.join(columns)}"
        hint = did_you_mean(missing, columns)
    else:
        message, hint = f"no file of rows has both columns, {named[0]!r} and {named[-1]!r}", None
    return UsageError(message, hint=hint)


def written_path(text: str, folder: Path) -> str:
    """Return a path as a spec in ``folder`` writes it; ``text`` is relative to the working folder.

    It is relative to the spec, unless it is outside the folder and was given as an absolute path.

    Raises:
        UsageError: Its name is not a text that a spec can contain.
    """
    path, here = expanded(text), Path(os.path.realpath(folder))
    # links on the way are followed, a link at the end is kept
    real = Path(os.path.realpath(path.parent), path.name) if path.name else path.resolve()
    if path.is_absolute() and not real.is_relative_to(here):
        written = str(path)
    else:
        written = os.path.relpath(real, here)
        written = written if is_path(written) else f"./{written}"
    return _text(written)


def _text(written: str) -> str:
    """Check that a path is a text that a spec can contain.

    Raises:
        UsageError: It is not.
    """
    try:
        written.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{written!r}: the name is not UTF-8", hint="rename it") from None
    return written


def _found(text: str, folder: Path, named: Named) -> Data:
    """Return what one path means."""
    if text.startswith("pkg://"):
        found = package_path(text)
        if isinstance(found, str):
            raise UsageError(f"{text}: {found}", hint="install the package first, with pip")
        return _at_path(text, found, text, named, folder)
    path = expanded(text)
    if not os.path.lexists(path) and is_pattern(text):
        return _of_pattern(text, folder, named)
    data = _at_path(text, path, written_path(text, folder), named, folder)
    data.is_outside = _is_outside(path, folder)
    return data


def _at_path(text: str, path: Path, written: str, named: Named, folder: Path) -> Data:
    if path.is_dir():
        return _of_folder(text, path, written, named, folder)
    if not path.exists():
        raise UsageError(f"there is no file or folder {text}", hint=_near(path))
    data = Data()
    _add_file(data, text, path, written, named)
    return data


def _near(path: Path) -> str | None:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist either"
    return did_you_mean(path.name, islice((p.name for p in path.parent.iterdir()), 1000))


def _is_outside(path: Path, folder: Path) -> bool:
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _of_pattern(text: str, folder: Path, named: Named) -> Data:
    root, pattern = split_pattern(str(expanded(text)))
    trouble = trouble_with(text, Path(root), pattern)
    if trouble:
        raise UsageError(trouble[0], hint=trouble[1])
    below = _below(Path(root), pattern)
    files = {name: found for name, found in below.items() if _ending(name) not in ENDINGS}
    if below and not files:
        raise UsageError(f"{text} matches no documents", hint=f"readable: {' '.join(FORMATS)}")
    tables = [name for name in files if _is_table(name)]
    if tables and len(tables) < len(files):
        raise UsageError(
            f"{text} matches both documents and files of rows",
            hint="give each its own pattern, by file extension: --data './x/*.md'",
        )
    data = Data(is_outside=_is_outside(Path(root), folder))
    data.others.update(_ending(name) for name in below.keys() - files.keys())
    base = written_path(root, folder)
    if not tables:
        written = _text(_joined(escaped(base), pattern))
        data.documents[written] = {file_id(f): _ending(name) for name, f in files.items()}
    for name in tables:
        path = Path(root, name)
        _add_file(data, str(path), path, _text(_joined(base, name)), named)
    return data


def _below(folder: Path, pattern: str) -> dict[str, os.stat_result]:
    """Return the files that match a pattern, in order.

    Raises:
        UsageError: One of them is neither file nor folder.
    """
    try:
        return dict(sorted(matching_files(folder, pattern)))
    except StageError as error:
        raise UsageError(error.message, hint=error.hint) from None


def _of_folder(text: str, folder: Path, written: str, named: Named, spec_dir: Path) -> Data:
    """Inspect all files of a folder, which the spec names whole: later runs see new files."""
    here = Path(os.path.realpath(spec_dir))

    def unread(name: str, file: FileId) -> None:
        data.unread[document_id(written, folder, here, name)] = file

    below = _below(folder, EVERYTHING)
    files = {name: found for name, found in below.items() if Path(name).name != SCHEMA}
    data = Data()
    for name in below.keys() - files.keys():
        unread(name, file_id(below[name]))
    if here.is_relative_to(os.path.realpath(folder)):  # the schema will be written there
        unread(os.path.relpath(here / SCHEMA, os.path.realpath(folder)), NO_FILE)
    for name, found in files.items():
        if _is_table(name):
            try:
                _add_file(data, name, folder / name, _text(_joined(written, name)), named)
            except (StageError, UsageError) as error:
                data.passed_over[file_id(found)] = error.message
            unread(name, file_id(found))  # unless its rows are used
        elif Path(name).suffix.lower() in FORMATS:
            data.documents.setdefault(written, {})[file_id(found)] = _ending(name)
        else:
            data.others[_ending(name)] += 1
    data.rows = [replace(rows, folder=written) for rows in data.rows]
    _pass_over_the_untold(data)
    if not data.count:
        endings = Counter(Path(name).suffix for name in files)
        there = ", ".join(f"{n} {ending or 'without one'}" for ending, n in endings.most_common(5))
        raise UsageError(
            f"{text} holds no documents and no rows",
            hint=f"files there, by extension: {there or 'none'}\nreadable: {' '.join(FORMATS)}",
        )
    return data


def _pass_over_the_untold(found: Data) -> None:
    """Leave out files of rows with unknown columns (such as settings) if others have known ones."""
    told = [rows for rows in found.rows if rows.are_told]
    if told or found.documents:
        for rows in found.rows:
            if rows not in told:
                columns = ", ".join(rows.first)
                found.passed_over[rows.file] = (
                    f"{rows.written}: columns of unknown meaning: {columns}; to use it, name "
                    "them: --question COLUMN --answer COLUMN"
                )
        found.rows = told


def _add_file(data: Data, label: str, path: Path, written: str, named: Named) -> None:
    if not path.is_file():
        what = SPECIAL.get(stat.S_IFMT(path.stat().st_mode), "a special file")
        raise UsageError(f"{label} is {what}; a regular file or a folder is needed here")
    if not _is_table(path.name):
        if _ending(path.name) not in FORMATS:
            _check_is_text(label, path)
        data.documents[written] = {file_id(path.stat()): _ending(path.name)}
        return
    rows = read(path, label, written, named)
    data.columns |= dict.fromkeys(rows.first)
    data.rows.append(rows)


def _is_table(name: str) -> bool:
    known = FORMATS.get(Path(name).suffix.lower())
    return known is not None and known.module == "rows"


def _check_is_text(label: str, path: Path) -> None:
    """Check that a file with an unknown extension can be read as text.

    Raises:
        UsageError: It has another format.
    """
    beginning = _beginning(path)
    kind = ENDINGS.get(_ending(path.name)) or foreign.told(beginning)
    if kind:
        raise UsageError(f"{label} is {kind}, which is not read", hint=foreign.HINT)
    if b"\0" in beginning:
        raise UsageError(f"{label} is not text", hint=f"readable: {' '.join(FORMATS)}")


def _ending(name: str) -> str:
    path = Path(name)
    return path.suffix.lower() or path.name


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4096)


def _joined(base: str, name: str) -> str:
    return f"./{name}" if base == "." else f"{base.rstrip('/')}/{name}"
