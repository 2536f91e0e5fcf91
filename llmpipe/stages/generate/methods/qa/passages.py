"""Read the passages that questions are asked about, from chunks or from whole documents.

A chunk is a passage as it is. A document is cut where its sections begin and, in a long section,
after a sentence. Either way a passage is an exact slice of its document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from llmpipe.contracts import Artifact
from llmpipe.documents.model import Document, Section, read_documents
from llmpipe.errors import StageError
from llmpipe.formats.provenance import Provenance
from llmpipe.retrieval.chunks import Chunk, read_chunks
from llmpipe.retrieval.citations import Source
from llmpipe.retrieval.sentences import sentence_spans
from llmpipe.stages.generate.methods.qa.quotes import Quotable
from llmpipe.words import plain_words

FEWEST_WORDS = 8
"""Words that a passage has at least: a shorter one is a heading or a remnant."""

FEWEST_QUOTED = 3
"""Words of a quote, at least: two words stand in many passages."""
LEADS_ON = (":", "：")
"""Ends of a sentence whose point is in what follows it, such as a list or an example."""


@dataclass(frozen=True)
class Passage:
    """A part of a document."""

    chunk: Chunk
    document: Document

    @property
    def id(self) -> str:
        """The id of the chunk."""
        return self.chunk.id

    @property
    def text(self) -> str:
        """The document's text from ``chunk.start`` to ``chunk.end``."""
        return self.chunk.text

    @property
    def place(self) -> str:
        """Where it stands, for messages: ``guide.md:120-560``."""
        return f"{self.document.id}:{self.chunk.start}-{self.chunk.end}"

    @property
    def heading(self) -> str:
        """The titles of its document and its section, in one line."""
        titles = dict.fromkeys([self.document.title, *self.chunk.section])
        return " – ".join(" ".join(title.split()) for title in titles if title.strip())

    @property
    def provenance(self) -> Provenance:
        """Itself as a source of rows, with its document as its parent."""
        return Provenance(self.id, (self.document.id,))

    @cached_property
    def quotable(self) -> Quotable:
        """Its text, to find quotes in."""
        return Quotable(self.text)

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """Its sentences that say something by themselves, each in one line."""
        spans = sentence_spans(self.text)
        lines = (" ".join(self.text[start:end].split()) for start, end in spans)
        return tuple(dict.fromkeys(filter(is_whole, lines)))

    def as_source(self) -> Source:
        """Return the passage as the only source of an answer."""
        return Source(1, self.chunk, self.document)


def is_whole(sentence: str) -> bool:
    """Return whether a sentence says something by itself: it has words, and no colon ends it."""
    return len(plain_words(sentence)) >= FEWEST_QUOTED and not sentence.endswith(LEADS_ON)


def read_passages(
    source: Artifact, longest: int, warn: Callable[[str], None]
) -> tuple[Passage, ...]:
    """Return the passages of chunks or of documents, each text once.

    Args:
        source: a chunk stage's or an ingest stage's artifact.
        longest: the most characters of a passage that is cut from a document.
        warn: called with how many passages are not used, and why.

    Raises:
        StageError: there is no passage.
    """
    found: dict[str, Passage] = {}
    short = repeated = mute = 0
    for passage in _chunks(source) if source.type == "chunks" else _cut(source, longest):
        if len(plain_words(passage.text)) < FEWEST_WORDS:
            short += 1
        elif not passage.sentences:
            mute += 1
        elif passage.text in found:
            repeated += 1
        else:
            found[passage.text] = passage
    for count, what in (
        (short, f"with fewer than {FEWEST_WORDS} words"),
        (mute, "without a sentence to quote"),
        (repeated, "that repeat another"),
    ):
        if count:
            warn(f"{source.label}: passages {what}, not used: {count}")
    if not found:
        raise StageError(
            f"{source.label} has no passage of {FEWEST_WORDS} words or more to ask about",
            hint="do its documents hold any text? look at the rejects of the ingest stage",
        )
    return tuple(found.values())


def _chunks(source: Artifact) -> Iterator[Passage]:
    documents = {each.id: each for each in read_documents(source.path / "documents.jsonl")}
    for chunk in read_chunks(source.path / "chunks.jsonl"):
        yield Passage(chunk, documents[chunk.document])


def _cut(source: Artifact, longest: int) -> Iterator[Passage]:
    for document in read_documents(source.path):
        for section in document.sections or (Section((), 0, len(document.text)),):
            for start, end in _parts(document.text, section, longest):
                chunk = Chunk(
                    id=f"{document.id}:{start}-{end}",
                    document=document.id,
                    start=start,
                    end=end,
                    text=document.text[start:end],
                    tokens=0,
                    section=section.path,
                    pages=document.pages_of(start, end),
                    metadata=document.metadata,
                )
                yield Passage(chunk, document)


def _parts(text: str, section: Section, longest: int) -> Iterator[tuple[int, int]]:
    """Yield the start and end of whole sentences, as many together as are not too long."""
    first = last = None
    for start, end in sentence_spans(text[section.start : section.end]):
        if first is not None and last is not None and end - first > longest:
            yield section.start + first, section.start + last
            first = None
        first, last = (start if first is None else first), end
    if first is not None and last is not None:
        yield section.start + first, section.start + last
