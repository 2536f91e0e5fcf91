"""What callers get to see of an index: what was found in it, and the documents around that.

The stage's own filters bound it: a document that no answer may come from is not shown either.
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
from llmpipe.web.errors import told

AROUND = 20_000
"""Characters of a document that are given on either side of a passage."""
LONGEST_PASSAGE = 20_000
"""Characters that are given of a passage."""

_SCORES = ("score", "dense_rank", "dense_score", "bm25_rank", "bm25_score", "rerank_score")


class Excerpt(msgspec.Struct, frozen=True, kw_only=True):
    """A passage with what stands around it in its document.

    ``cut_before`` and ``cut_after`` say that the document goes on beyond that; a passage that is
    too long to be given as a whole is cut itself, and nothing stands after it.
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
    """The documents of an index, as far as the filters let them be seen."""

    def __init__(self, passages: Passages, filters: Filters) -> None:
        self._passages = passages
        self._filters = filters
        self._title = functools.lru_cache(maxsize=10_000)(self._read_title)

    def document(self, name: str) -> Document | None:
        """Give a document; None where there is none of this id that may be seen."""
        return self._passages.document(name) if self._may_be_seen(name) else None

    def hits(self, hits: Iterable[Hit]) -> list[dict[str, Any]]:
        """Give what was found as data."""
        return [self._hit(hit) for hit in hits]

    def narrowed(self, filters: Mapping[str, Any]) -> dict[str, Any]:
        """Give the stage's filters together with those of a request.

        Raises:
            FilterError: one is of no known form, or narrows what the stage narrows already; or they
                are more than a request may have.
        """
        require_moderate(filters)
        read_filters(filters)
        for name in filters:
            if name in self._filters:
                raise FilterError(f"the service narrows {name!r} already; leave it out")
        return {**self._filters, **filters}

    def told(self, error: FilterError) -> str:
        """Say what is wrong with a filter.

        A hint may name the metadata of any document: there is none where some are not to be seen.
        """
        return error.message if self._filters else told(error)

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
    """Give a stretch of a document with what stands around it.

    Raises:
        ValueError: there is no such stretch.
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
