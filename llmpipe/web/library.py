"""What callers can see of an index: search results, and the documents around them.

The stage's own filters apply: a document that is excluded from answers is not shown either.
"""

from __future__ import annotations

import functools
import glob
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from llmpipe.documents.model import Document
from llmpipe.retrieval.filters import DOCUMENT, FilterError, Filters, read_filters, require_moderate
from llmpipe.retrieval.hits import Hit
from llmpipe.retrieval.passages import Passages
from llmpipe.web.errors import one_line

AROUND = 20_000
"""The number of characters of a document that are shown on each side of a passage."""
LONGEST_PASSAGE = 20_000
"""The number of characters of a passage that are shown."""

_SCORES = ("score", "dense_rank", "dense_score", "bm25_rank", "bm25_score", "rerank_score")


class Excerpt(msgspec.Struct, frozen=True, kw_only=True):
    """A passage with the text around it in its document.

    ``cut_before`` and ``cut_after`` say whether the document continues beyond that. A passage that
    is too long is cut itself; then ``after`` is empty.
    """

    document: str
    title: str
    section: tuple[str, ...]
    pages: tuple[int, int] | None
    before: str
    quote: str
    after: str
    cut_before: bool
    cut_after: bool


class Library:
    """The documents of an index that the stage's filters allow."""

    def __init__(self, passages: Passages, filters: Filters) -> None:
        self._passages = passages
        self._filters = filters
        self._title = functools.lru_cache(maxsize=10_000)(self._read_title)

    def document(self, name: str) -> Document | None:
        """Return a document, or None if there is no visible document with this id."""
        return self._passages.document(name) if self._may_be_seen(name) else None

    def hits(self, hits: Iterable[Hit]) -> list[dict[str, Any]]:
        """Return search results as data."""
        return [self._hit(hit) for hit in hits]

    def narrowed(self, filters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the stage's filters combined with those of a request.

        Raises:
            FilterError: A filter has an unknown form, the stage already filters its key, or there
                are more filters than a request may have.
        """
        require_moderate(filters)
        read_filters(filters)
        for name in filters:
            if name in self._filters:
                raise FilterError(f"the service already filters by {name!r}; leave it out")
        return {**self._filters, **filters}

    def message_of(self, error: FilterError) -> str:
        """Return the message of a filter error, with its hint if all documents are visible.

        The hint may name metadata of any document, also of a hidden one.
        """
        return error.message if self._filters else one_line(error)

    def _hit(self, hit: Hit) -> dict[str, Any]:
        chunk = hit.chunk
        return {
            "rank": hit.rank,
            "chunk": chunk.id,
            "document": chunk.document,
            "title": self._title(chunk.document),
            "section": chunk.section,
            "pages": chunk.pages,
            "start": chunk.start,
            "end": chunk.end,
            "text": chunk.text,
            **({"header": chunk.header} if chunk.header else {}),
            **{name: getattr(hit, name) for name in _SCORES},
        }

    def _read_title(self, name: str) -> str:
        document = self._passages.document(name)
        return document.title if document else name

    def _may_be_seen(self, name: str) -> bool:
        if not self._filters:
            return True
        (admitted,) = read_filters(self._filters).admits_documents([name])
        alone = {**self._filters, DOCUMENT: glob.escape(name)}
        return admitted and self._passages.rows_matching(alone).size > 0


def excerpt(document: Document, start: int, end: int) -> Excerpt:
    """Return a span of a document with the text around it.

    Raises:
        ValueError: The document does not have this span.
    """
    length = len(document.text)
    if not 0 <= start <= end <= length:
        raise ValueError(f"the document has the characters 0 to {length}, not {start} to {end}")
    pages = document.pages_of(start, end)
    first, last = max(0, start - AROUND), min(length, end + AROUND)
    if end - start > LONGEST_PASSAGE:
        end = last = start + LONGEST_PASSAGE
    sections = (s.path for s in document.sections if s.start <= start < s.end)
    return Excerpt(
        document=document.id,
        title=document.title,
        section=next(sections, ()),
        pages=pages,
        before=document.text[first:start],
        quote=document.text[start:end],
        after=document.text[end:last],
        cut_before=first > 0,
        cut_after=last < length,
    )
