"""A document as text, with the positions of its sections and pages.

All offsets count characters (Unicode code points) of `Document.text`, so that a passage that is
found later can be opened exactly where it comes from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

import msgspec

from llmpipe.documents.lines import read_lines, write_lines

Scalar = str | int | float | bool
"""A metadata value, by which searches can be filtered."""


class Section(msgspec.Struct, frozen=True):
    """The text from one heading to the next heading of any level.

    ``path`` contains the headings from the outermost to its own. The text before the first heading
    is a section with an empty path. Sections follow each other without gaps.
    """

    path: tuple[str, ...]
    start: int
    end: int


class Page(msgspec.Struct, frozen=True):
    """A page of a paged document; ``number`` starts at 1."""

    number: int
    start: int
    end: int


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """A document.

    Attributes:
        id: where it comes from: its path relative to the input. A row adds its number, such as
            ``#3``, or the value of a column.
        source_digest: SHA-256 of the file that it was read from.
        row: its row number in the file, from 1; 0 if it is the whole file.
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
        """Return the numbers of the first and last page that a range of text touches."""
        touched = [page.number for page in self.pages if page.start < end and start < page.end]
        return (touched[0], touched[-1]) if touched else None


def untitled(file: str, row: str = "") -> str:
    """Return the title of a document without one, from the names of its file and row."""
    return f"{PurePath(file).stem} {row}".rstrip()


def write_documents(path: Path, documents: Iterable[Document]) -> int:
    """Write one document per line and return their number."""
    return write_lines(path, documents)


def read_documents(path: Path) -> Iterator[Document]:
    """Yield the documents of a file that `write_documents` wrote.

    Raises:
        StageError: the file was not written by `write_documents`.
    """
    return read_lines(path, Document)
