"""A document as text, with where its sections and pages lie in that text.

All offsets count characters (Unicode code points) of `Document.text`, so that a passage found later
can be opened at the very place that it comes from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

import msgspec

from llmpipe.documents.lines import read_lines, write_lines

Scalar = str | int | float | bool
"""A value of a document's metadata, which searches can be filtered by."""


class Section(msgspec.Struct, frozen=True):
    """The text from one heading up to the next heading of any level.

    ``path`` holds the titles from the outermost heading to its own. What stands before the first
    heading is a section too, with an empty path. Sections follow each other without gaps.
    """

    path: tuple[str, ...]
    start: int
    end: int


class Page(msgspec.Struct, frozen=True):
    """One page of a paged document; ``number`` counts from 1."""

    number: int
    start: int
    end: int


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """One document.

    ``id`` says where it comes from: its path below the input, with ``#3`` for the third row of a
    file of rows, or what a column of the row says in the place of the 3. ``source_digest`` is the
    SHA-256 of the bytes that it was read from, ``row`` the number of its row in them, from 1; 0
    where it is all of a file.
    """

    id: str
    title: str
    media_type: str
    source_digest: str
    text: str
    sections: tuple[Section, ...]
    pages: tuple[Page, ...] = ()
    metadata: dict[str, Scalar] = {}
    row: int = 0

    def pages_of(self, start: int, end: int) -> tuple[int, int] | None:
        """Give the numbers of the first and last page that a stretch of text touches."""
        touched = [page.number for page in self.pages if page.start < end and start < page.end]
        return (touched[0], touched[-1]) if touched else None


def untitled(file: str, row: str = "") -> str:
    """Give the title of a document that says none itself, from its file's name and its row's."""
    return f"{PurePath(file).stem} {row}".rstrip()


def write_documents(path: Path, documents: Iterable[Document]) -> int:
    """Write one document a line; give how many there were."""
    return write_lines(path, documents)


def read_documents(path: Path) -> Iterator[Document]:
    """Give the documents of a file that `write_documents` wrote.

    Raises:
        StageError: it is not such a file.
    """
    return read_lines(path, Document)
