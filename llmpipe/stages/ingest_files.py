"""Find the files for `ingest`, and name their documents."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from llmpipe.contracts import Artifact
from llmpipe.documents.convert import FORMATS
from llmpipe.documents.foreign import ENDINGS
from llmpipe.errors import StageError
from llmpipe.paths import is_path
from llmpipe.patterns import EVERYTHING, is_pattern, matching_files, split_pattern

PACKAGE = "pkg://"

MOST_FILES = 20
"""Number of files of rows whose columns are checked before a run."""


@dataclass(slots=True)
class Collection:
    """The files to read by the ids of their documents, and those that were skipped."""

    files: dict[str, Path] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)
    """Files in folders and patterns that are not documents, by extension."""
    dangling: list[str] = field(default_factory=list)
    """Broken links, named as their documents would be."""
    excluded: int = 0
    idle: list[str] = field(default_factory=list)
    """Patterns under `exclude` that match nothing."""


def collect(
    paths: Mapping[str, Artifact],
    exclude: Sequence[str],
    spec_dir: Path,
    *,
    allow_outside: bool,
) -> Collection:
    """Find the files of each path in the spec.

    Raises:
        StageError: A path or a link leads out of the allowed folders, or two files have the
            same id.
    """
    found = Collection()
    used: set[str] = set()
    dangling: set[str] = set()
    here = _real(spec_dir)
    for text, artifact in paths.items():
        if is_path(text) and not allow_outside and not _real(artifact.path).is_relative_to(here):
            raise StageError(
                f"{text} is outside the folder of the spec, at {_real(artifact.path)}",
                hint="move it there, or allow it: allow_outside: true",
            )
        prefix = _prefix(text, artifact.path, here)
        nowhere: set[str] = set()
        named = _named(text, artifact, found.passed_over, nowhere, follow=allow_outside)
        for name, path in named:
            id_ = _id(prefix, name)
            fitting = _fitting(id_, exclude)
            used |= fitting
            if fitting:
                found.excluded += 1
            elif _real(found.files.setdefault(id_, path)) != _real(path):
                raise StageError(
                    f"{found.files[id_]} and {path} would both be called {id_}",
                    hint="name the folder above both, or rename one of them",
                )
        dangling |= {_id(prefix, name) for name in nowhere}
    found.dangling = sorted(name for name in dangling if not _fitting(name, exclude))
    found.idle = [pattern for pattern in exclude if pattern not in used]
    return found


def _named(
    text: str, artifact: Artifact, passed_over: Counter[str], nowhere: set[str], *, follow: bool
) -> Iterator[tuple[str, Path]]:
    """Yield the files of one path by their relative names; count the skipped ones.

    ``nowhere`` collects the names of broken links.
    """
    if artifact.pattern is None and not artifact.path.is_dir():
        yield artifact.path.name, artifact.path
        return
    pattern = artifact.pattern or EVERYTHING
    takes_all = pattern.rpartition("/")[2] != EVERYTHING
    root = _real(artifact.path)
    try:
        names = sorted(name for name, _ in matching_files(artifact.path, pattern, nowhere))
    except OSError as error:
        raise StageError(f"{error.filename} cannot be read: {error.strerror}") from None
    for name in names:
        path = artifact.path / name
        ending = path.suffix.lower()
        if ending not in FORMATS and (not takes_all or ending in ENDINGS):
            passed_over[_unicode(ending or path.name)] += 1
            continue
        if is_path(text) and not follow and not _real(path).is_relative_to(root):
            raise StageError(
                f"{name} in {artifact.label} leads out of it by a link, to {_real(path)}",
                hint="remove it, or allow it: allow_outside: true",
            )
        yield name, path


def files_of_rows(paths: Sequence[str], exclude: Sequence[str], spec_dir: Path) -> list[str | None]:
    """Return the files of rows among these paths, or None for a path that cannot be checked.

    If there are many files, they are not checked, because each takes time.
    """
    found: list[str | None] = []
    here = _real(spec_dir)

    def add(text: str, root: Path, name: str) -> None:
        if not _fitting(document_id(text, root, here, name), exclude):
            found.append(str(root / name))

    for text in paths:
        root, pattern = split_pattern(text) if is_pattern(text) else (text, "")
        if not Path(root).is_absolute():
            found.append(None)
        elif not pattern:
            add(text, Path(text).parent, Path(text).name)
        else:
            with suppress(OSError, StageError):  # the stage will report it
                for name in sorted(name for name, _ in matching_files(Path(root), pattern)):
                    add(text, Path(root), name)
    rows = [file for file in found if file is None or _holds_rows(file)]
    return rows if len(rows) <= MOST_FILES else [None]


def _holds_rows(file: str) -> bool:
    kind = FORMATS.get(Path(file).suffix.lower())
    return kind is not None and kind.module == "rows"


def _id(prefix: str, name: str) -> str:
    return _unicode(f"{prefix}/{name}" if prefix else name)


def _fitting(id_: str, patterns: Sequence[str]) -> set[str]:
    return {pattern for pattern in patterns if fnmatchcase(id_, pattern)}


def document_id(text: str, path: Path, here: Path, name: str) -> str:
    """Return the id of a document.

    Args:
        text: The file or folder that it comes from, as the spec names it.
        path: Its location.
        here: The real location of the spec's folder.
        name: The file's name below the folder.
    """
    return _id(_prefix(text, path, here), name)


def _prefix(text: str, path: Path, here: Path) -> str:
    """Return the prefix of the ids of a path's documents, the same on every machine."""
    if not is_path(text) and not text.startswith(PACKAGE):
        return text  # a stage's output: its place in the store has no meaning
    folder = path if path.is_dir() else path.parent
    real = _real(folder)
    if is_path(text) and real.is_relative_to(here):
        inner = real.relative_to(here).as_posix()
        return "" if inner == "." else inner
    return folder.name


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _unicode(name: str) -> str:
    """Return a name as text, even if its bytes cannot be decoded."""
    return os.fsencode(name).decode("utf-8", "replace")
