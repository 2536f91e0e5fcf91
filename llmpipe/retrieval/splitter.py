"""Split documents into chunks, measured in tokens of the model that will embed them.

A chunk is an exact slice of its document and never crosses a section. Inside a section, cuts fall
between paragraphs, list items or code blocks if possible, else between sentences, then between
words, and inside a word as a last resort. Neighbors in a section share up to `overlap` tokens. The
embedded text is the context (the document's title and the headings of the section) and the chunk.
Both together, special tokens included, have at most `tokens` tokens: each chunk is counted again at
the end.

A table that does not fit into one chunk is cut between rows, and a row that does not fit between
cells, without overlap. A chunk that begins inside a table carries the names of its columns as its
`header`, which counts toward `tokens`.

A section that consists only of its heading is joined to the next one, and a heading stays with the
text below it. Whitespace gives no chunk. Not covered: splitting by meaning.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from llmpipe.documents.model import Document, Section
from llmpipe.errors import StageError
from llmpipe.retrieval.chunks import Chunk, below
from llmpipe.retrieval.tables import Span, Table, find_tables, table_at, tables_between

CHARACTERS_PER_TOKEN = 16
"""Every so many characters count as at least one token: a tokenizer may see one unknown token in a
word of ten thousand letters, and a chunk of such words would be useless."""
CONTEXT_SHARE = 3
"""The context may take one in so many of the tokens."""
SCRAP = 10
"""A piece smaller than one in so many of the available tokens is joined to a neighbor."""
WRAPPED = 40
"""A line of prose of at least this length, followed by another line, counts as wrapped."""

_SOFT_BREAK = re.compile(rf"(?<=\n)(\S[^\n]{{{WRAPPED},}}?)(\r?\n)(?=[^\W\d_])")
_MARKUP = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class _Unit:
    """A span that chunks do not cross; ``heading`` is where its headings end."""

    path: tuple[str, ...]
    start: int
    end: int
    heading: int


@dataclass(frozen=True, slots=True)
class _Text:
    """The text of a document, its tables, and the context of the unit that is being split."""

    whole: str
    tables: Sequence[Table]
    context: str = ""

    def __getitem__(self, span: Span) -> str:
        return self.whole[slice(*span)]

    def rest_of_row(self, span: Span) -> int | None:
        """Return where the next row begins if a span begins inside a row and reaches past it."""
        table = table_at(self.tables, span[0])
        if table is None:
            return None
        row, following = table.row(span[0])
        return following if row < span[0] and following < min(span[1], table.end) else None


class Splitter:
    """Splits documents; ``tokenizer`` is from the ``tokenizers`` library, without truncation."""

    def __init__(self, tokenizer: Any, *, tokens: int, overlap: int, context: bool = True) -> None:
        self.tokens = tokens
        self.overlap = overlap
        self.context = context
        self._tokenizer = tokenizer
        self._special = self.count("")
        self._size = lru_cache(maxsize=1024)(self._measure)
        self._shortened = lru_cache(maxsize=1024)(self._shorten)

    def count(self, text: str) -> int:
        """Count the tokens of a text, special tokens included."""
        return len(self._tokenizer.encode(text))

    def split(self, document: Document) -> list[Chunk]:
        """Return the chunks of a document in text order."""
        chunks: list[Chunk] = []
        tables = find_tables(document.text)
        for unit in _units(document):
            context = self._context(document.title, unit.path) if self.context else ""
            text = _Text(document.text, tables, context)
            chunks += (self._chunk(document, unit, text, span) for span in self._spans(text, unit))
        return chunks

    def _chunk(self, document: Document, unit: _Unit, text: _Text, span: Span) -> Chunk:
        start, end = span
        identity = f"{document.id}\0{start}\0{end}\0{text[span]}"
        return Chunk(
            id=hashlib.sha256(identity.encode()).hexdigest()[:20],
            document=document.id,
            start=start,
            end=end,
            text=text[span],
            tokens=self.count(self._embedded(text, span)),
            section=unit.path,
            pages=document.pages_of(start, end),
            context=text.context,
            metadata=document.metadata,
            header=self._header(text, span),
        )

    def _embedded(self, text: _Text, span: Span) -> str:
        return below(text.context, self._header(text, span), text[span])

    def _header(self, text: _Text, span: Span) -> str:
        """Return the column names above a span, shortened if they take too many tokens."""
        table = table_at(text.tables, span[0])
        return self._shortened(table.header(*span), self._share) if table else ""

    @property
    def _share(self) -> int:
        return self.tokens // CONTEXT_SHARE

    def _spans(self, text: _Text, unit: _Unit) -> Iterator[Span]:
        """Split a unit into spans that fit below the context."""
        whole = _trimmed(text, (unit.start, unit.end))
        if self._excess(text, whole) <= 0:
            yield whole
            return
        room = self.tokens - self.count(below(text.context, "", ""))
        room -= max(map(self._size, self._headers(text, unit, room)), default=0)
        heading = self._size(text[unit.start, unit.heading])
        if not heading or heading * 2 > room:
            spans = self._cut(text, (unit.start, unit.end), room)
        else:  # the first span includes the headings, so that they do not become a chunk
            spans = self._cut(text, (unit.heading, unit.end), room - heading)
            spans[0] = _trimmed(text, (unit.start, spans[0][1]))
        for span in spans:
            yield from self._fitting(text, span)

    def _headers(self, text: _Text, unit: _Unit, room: int) -> Iterator[str]:
        """Yield the headers of tables that do not fit into one chunk."""
        for table in tables_between(text.tables, unit.start, unit.end):
            if not self._fits(text[table.start, table.end], room):
                yield self._header(text, (table.rows[1], table.end))

    def _fitting(self, text: _Text, span: Span) -> Iterator[Span]:
        """Split a span further if it has too many tokens together with the text above it.

        While splitting, tokens are counted piece by piece. Tokens can merge across pieces, which
        makes the sum slightly wrong.
        """
        excess = self._excess(text, span)
        if excess <= 0:
            yield span
            return
        room = self._size(text[span]) - excess
        parts = self._cut(text, span, room) if room > 0 else [span]
        if parts == [span]:
            raise StageError(
                f"{text[span][:20]!r} does not fit into {self.tokens} tokens",
                hint="raise `tokens`, or set `context: false`",
            )
        for part in parts:
            yield from self._fitting(text, part)

    def _cut(self, text: _Text, span: Span, room: int) -> list[Span]:
        """Split a span into pieces within ``room``, if possible without scraps such as a fence.

        If a scrap does not fit beside its neighbors, the pieces are made smaller.
        """
        spans = self._joined(text, self._pieces(text, span, room), room)
        if room >= SCRAP and any(self._is_scrap(text, span, room) for span in spans):
            smaller = self._pieces(text, span, room - room // SCRAP)
            spans = self._joined(text, smaller, room)
        return spans

    def _joined(self, text: _Text, spans: Iterable[Span], room: int) -> list[Span]:
        """Join scraps to the piece before or after them if both fit together."""
        joined: list[Span] = []
        for span in spans:
            both = (joined[-1][0], span[1]) if joined else span
            scrap = joined and any(self._is_scrap(text, s, room) for s in (joined[-1], span))
            if scrap and not text.rest_of_row(both) and self._size(text[both]) <= room:
                joined[-1] = both
            else:
                joined.append(span)
        return joined

    def _is_scrap(self, text: _Text, span: Span, room: int) -> bool:
        return self._size(text[span]) * SCRAP < room

    def _pieces(self, text: _Text, span: Span, room: int) -> Iterator[Span]:
        """Split a span; a piece that begins inside a table row ends with that row."""
        done = 0
        for start, end in self._uneven_pieces(text, span, room):
            if rest := text.rest_of_row((start, end)):
                if rest > done:  # otherwise the previous piece contains it
                    yield _trimmed(text, (start, rest))
                start = rest
            start, end = _trimmed(text, (start, end))  # spaces that Markdown does not know
            if start < end:
                yield start, end
            done = end

    def _uneven_pieces(self, text: _Text, span: Span, room: int) -> list[Span]:
        """Split tables that do not fit by rows, and everything else as Markdown."""
        at, stop = span
        spans: list[Span] = []
        for table in tables_between(text.tables, *span):
            start, end = max(at, table.start), min(stop, table.end)
            if not self._fits(text[start, end], room):
                spans += self._passages(text, (at, start), room)
                self._add_rows(text, spans, table, (start, end), room)
                at = end
        return spans + self._passages(text, (at, stop), room)

    def _add_rows(
        self, text: _Text, spans: list[Span], table: Table, span: Span, room: int
    ) -> None:
        """Add rows to the last span and to new ones; split rows that do not fit at all."""

        def fits(row: Span) -> bool:
            return self._fits(text[row], room)

        def fits_below_names(cells: Span) -> bool:
            return fits(cells) and self._fits(table.header(*cells), self._share)

        def cut(row: Span) -> list[Span]:
            cells = (_trimmed(text, cell) for cell in table.cells_between(*row))
            return _packed([], cells, fits_below_names, partial(self._passages, text, room=room))

        rows = (_trimmed(text, row) for row in table.rows_between(*span))
        _packed(spans, rows, fits, cut)

    def _passages(self, text: _Text, span: Span, room: int) -> list[Span]:
        from semantic_text_splitter import MarkdownSplitter

        overlap = min(self.overlap, (room - 1) // 2)
        splitter = MarkdownSplitter.from_callback(self._sizer(room), room, overlap)
        pieces = splitter.chunk_indices(_unwrapped(text[span]))
        begin = span[0]
        found = (_trimmed(text, (begin + at, begin + at + len(piece))) for at, piece in pieces)
        return [(start, end) for start, end in found if start < end]

    def _fits(self, text: str, room: int) -> bool:
        return self._sizer(room)(text) <= room

    def _sizer(self, room: int) -> Callable[[str], int]:
        def size(text: str) -> int:
            least = len(text) // CHARACTERS_PER_TOKEN
            return least if least > room else self._size(text)

        return size

    def _measure(self, text: str) -> int:
        """Count the tokens of a text without special tokens."""
        tokens = len(self._tokenizer.encode(text, add_special_tokens=False))
        return max(tokens, -(-len(text) // CHARACTERS_PER_TOKEN))

    def _excess(self, text: _Text, span: Span) -> int:
        """Return how many tokens a span and the text above it have over the limit."""
        tokens = self.count(self._embedded(text, span))
        least = -(-(span[1] - span[0]) // CHARACTERS_PER_TOKEN)
        return max(tokens, least) - self.tokens

    def _context(self, title: str, path: tuple[str, ...]) -> str:
        """Return the path of a section, shortened if it takes too many tokens.

        The outer sections are dropped first, then the document's title, then the end of the rest.
        """
        parts = [" ".join(part.split()) for part in (title, *path)]
        parts = [part for i, part in enumerate(parts) if part and part not in parts[:i]]
        if not parts:
            return ""
        for chosen in (parts, [parts[0], "…", parts[-1]], [parts[-1]]):
            context = " › ".join(chosen)
            if self._size(context) <= self._share:
                return context
        return self._shortened(parts[-1], self._share)

    def _shorten(self, text: str, budget: int) -> str:
        """Drop words at the end of a text until it has at most ``budget`` tokens."""

        def size(count: int) -> int:
            return self._size(" ".join(words[:count]))

        words = text.split()
        kept = len(words)
        if size(kept) > budget:
            kept = bisect_right(range(kept), budget, key=size) - 1
        while kept and size(kept) > budget:  # one more word can mean one token less
            kept -= 1
        return " ".join(words[:kept])


def _packed(
    spans: list[Span],
    parts: Iterable[Span],
    fits: Callable[[Span], bool],
    cut: Callable[[Span], list[Span]],
) -> list[Span]:
    """Append parts to the last span while they fit, else as new spans; split oversized ones."""
    growing = bool(spans)
    for part in parts:
        both = (spans[-1][0], part[1]) if growing else part
        if growing and fits(both):
            spans[-1] = both
        elif fits(part):
            spans.append(part)
            growing = True
        else:
            spans += cut(part)
            growing = False
    return spans


def cuts_a_word(document: Document, chunk: Chunk) -> bool:
    """Return whether a chunk ends inside a word, in a script with spaces between words."""
    around = document.text[chunk.end - 1 : chunk.end + 1]
    return len(around) == 2 and all(
        letter.isalnum() and unicodedata.east_asian_width(letter) not in "WF" for letter in around
    )


def _trimmed(text: _Text, span: Span) -> Span:
    """Return a span without surrounding whitespace."""
    (start, end), stretch = span, text[span]
    start += len(stretch) - len(stretch.lstrip())
    return start, max(start, end - (len(stretch) - len(stretch.rstrip())))


def _unwrapped(text: str) -> str:
    """Replace line breaks inside wrapped prose by spaces, so that sentences continue across lines.

    The length is unchanged: offsets in the result are offsets in the text.
    """
    return _SOFT_BREAK.sub(lambda m: m[1] + " " * len(m[2]), f"\n{text}")[1:]


def _units(document: Document) -> list[_Unit]:
    """Return the sections; a section that is only a heading is joined to the next one.

    Headings at the end of a document are joined to the section before them.
    """
    units: list[_Unit] = []
    begin: int | None = None
    for section in document.sections:
        if not document.text[section.start : section.end].strip():
            continue
        begin = section.start if begin is None else begin
        below = _end_of_heading(document.text, section)
        if below is not None and not document.text[below : section.end].strip():
            continue
        heading = begin if below is None and begin == section.start else below or section.start
        units.append(_Unit(section.path, begin, section.end, heading))
        begin = None
    if begin is not None:
        end = document.sections[-1].end
        if units:
            last = units.pop()
            units.append(_Unit(last.path, last.start, end, last.heading))
        else:
            units.append(_Unit(document.sections[-1].path, begin, end, begin))
    return units


def _end_of_heading(text: str, section: Section) -> int | None:
    """Return where the heading at the start of a section ends; None if there is none.

    A heading is the section's title in any markup, or a line that Markdown reads as a heading.
    Adjacent lines without letters or digits (``====``) belong to it.
    """
    if not section.path:
        return None
    title = _letters(section.path[-1])
    at, found = section.start, False
    for line in text[section.start : section.end].splitlines(keepends=True):
        letters = _letters(line)
        if letters:
            if found or not (letters == title or line.lstrip().startswith("#")):
                break
            found = True
        elif found and not line.strip():
            break
        at += len(line)
    return at if found else None


def _letters(text: str) -> str:
    return _MARKUP.sub("", text).casefold()
