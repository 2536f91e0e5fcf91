"""A chunk: a part of one document that is embedded, retrieved and cited as a unit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from llmpipe.documents.lines import read_lines, write_lines
from llmpipe.documents.model import Scalar


class Chunk(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of a document: ``text`` is the document's text from ``start`` to ``end``.

    Attributes:
        id: digest of document, position and text.
        tokens: number of tokens of context, header and text together, special tokens included,
            counted with the tokenizer that the chunks were cut with.
        section: headings above the chunk.
        pages: first and last page that the chunk touches.
        context: title and section, put before the text for embedding and indexing.
        header: column names, put between context and text when the text continues a table that
            began before it.
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
        """Return the text that represents the chunk in every index."""
        return below(self.context, self.header, self.text)


def below(context: str, header: str, text: str) -> str:
    """Return a text below its context and its table header."""
    text = f"{header}\n{text}" if header else text
    return f"{context}\n\n{text}" if context else text


def write_chunks(path: Path, chunks: Iterable[Chunk]) -> int:
    """Write one chunk per line and return their number."""
    return write_lines(path, chunks)


def read_chunks(path: Path) -> Iterator[Chunk]:
    """Yield the chunks of a file that `write_chunks` wrote.

    Raises:
        StageError: the file was not written by `write_chunks`.
    """
    return read_lines(path, Chunk)
