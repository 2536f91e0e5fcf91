"""A chunk: a stretch of one document that is embedded, found and cited as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from llmpipe.documents.lines import read_lines, write_lines
from llmpipe.documents.model import Scalar


class Chunk(msgspec.Struct, frozen=True, omit_defaults=True):
    """A stretch of a document: ``text`` is the document's text from ``start`` to ``end``.

    ``id`` is a digest of document, place and text. ``section`` holds the titles above the chunk,
    ``pages`` the first and last page that it touches. ``context`` is put before the text where it
    is embedded and indexed (the title and section); ``header`` too, between both, where the text
    goes on with a table that began before it: the names of the columns. ``tokens`` counts all
    together, special tokens included, with the tokenizer that the chunks were cut by.
    """

    id: str
    document: str
    start: int
    end: int
    text: str
    tokens: int
    section: tuple[str, ...] = ()
    pages: tuple[int, int] | None = None
    context: str = ""
    metadata: Mapping[str, Scalar] = {}
    header: str = ""

    def embedded_text(self) -> str:
        """Give the text that stands for the chunk in every index."""
        return below(self.context, self.header, self.text)


def below(context: str, header: str, text: str) -> str:
    """Put a text below its context and the header of its table."""
    text = f"{header}\n{text}" if header else text
    return f"{context}\n\n{text}" if context else text


def write_chunks(path: Path, chunks: Iterable[Chunk]) -> int:
    """Write one chunk a line; give how many there were."""
    return write_lines(path, chunks)


def read_chunks(path: Path) -> Iterator[Chunk]:
    """Give the chunks of a file that `write_chunks` wrote.

    Raises:
        StageError: it is not such a file.
    """
    return read_lines(path, Chunk)
