"""Map the source numbers in an answer to the sentences of the sources that support it.

A number belongs to the sentence that it ends, or to the sentence that follows when it starts a
line. From the named source, the sentences that share most words with the answer's sentence are
quoted; words that occur in many sentences of the sources weigh little. A sentence without a number
gets a citation marked ``inferred`` when a source shares enough of its words, contains all of its
quantities, dates and negations (see `llmpipe.retrieval.facts`), and has the quantities beside the
same words (see `llmpipe.retrieval.clauses`). Numbers are those of the sources in the prompt.

This compares words, not meanings. A source that the answer itself names is always cited: `support`
is then just the share of words, even if the sentence says the opposite of its source.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import msgspec

from llmpipe.documents.model import Document
from llmpipe.retrieval.chunks import Chunk
from llmpipe.retrieval.clauses import Clause, clauses, clauses_of_source, misplaced
from llmpipe.retrieval.facts import Facts, facts_of
from llmpipe.retrieval.sentences import sentence_spans
from llmpipe.retrieval.tables import find_tables, names_above
from llmpipe.retrieval.unit_words import UNITS
from llmpipe.words import bare, compounds, plain_words

SUPPORTED = 0.5
"""The weighted share of a sentence's words that a quote must contain to support it."""
MIN_INFERRED_WORDS = 3
"""Words that a sentence needs for an inferred citation: shorter ones match anywhere."""
MAX_QUOTE_SENTENCES = 3
"""The highest number of sentences in a quote."""
SENTENCE_GAIN = 0.2
"""How much a further sentence must add to the share of words to extend a quote."""

SENTENCE_ENDS = ".!?…。！？\"'”’»)]"
"""Characters that a complete sentence can end with."""

_NUMBER = re.compile(r"\[(\d{1,4})\]")

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Source:
    """A passage and its number in the prompt, by which an answer can name it."""

    number: int
    chunk: Chunk
    document: Document


class Citation(msgspec.Struct, frozen=True):
    """A part of a document that supports a part of the answer.

    Attributes:
        quote: the document's text from ``start`` to ``end``, verbatim.
        claim: start and end of the supported sentence in the answer.
        support: the weighted share of that sentence's words that the quote contains.
        inferred: whether the answer names no source for this sentence.
    """

    number: int
    document: str
    title: str
    section: tuple[str, ...]
    pages: tuple[int, int] | None
    start: int
    end: int
    quote: str
    chunk: str
    claim: Span
    support: float
    inferred: bool = False


def cite(answer: str, sources: Sequence[Source], *, is_cut: bool = False) -> tuple[Citation, ...]:
    """Return the citations of an answer, sentence by sentence.

    With ``is_cut``, no source is inferred for an incomplete last sentence, because its end is
    unknown.
    """
    quoter = _Quoter(sources)
    by_number = {source.number: source for source in sources}
    found = []
    end = len(answer.rstrip())
    for claim, numbers in claims(answer):
        spoken = _NUMBER.sub(" ", answer[claim[0] : claim[1]])
        words = _words(spoken)
        named = [by_number[number] for number in numbers if number in by_number]
        if named:
            found += [quoter.citation(source, claim, words) for source in named]
        elif is_cut and claim[1] == end and answer[end - 1] not in SENTENCE_ENDS:
            continue
        elif is_statement(spoken):
            found += quoter.inferred(claim, words, spoken)
    return tuple(found)


def without_numbers(answer: str) -> str:
    """Return an answer without its source numbers and the spaces before them."""
    return re.sub(rf"\s*{_NUMBER.pattern}", "", answer)


def is_statement(sentence: str) -> bool:
    """Return whether a sentence says enough to need a source."""
    return len({*plain_words(sentence)}) >= MIN_INFERRED_WORDS


def claims(answer: str) -> Iterator[tuple[Span, tuple[int, ...]]]:
    """Yield each sentence of an answer with the distinct numbers that it names."""
    spoken = _NUMBER.sub(lambda match: " " * len(match[0]), answer)
    spans = sentence_spans(spoken)
    named: list[list[int]] = [[] for _ in spans]
    for match in _NUMBER.finditer(answer):
        if spans:
            named[_owner(answer, spans, match.start())].append(int(match[1]))
    for span, numbers in zip(spans, named, strict=True):
        yield span, tuple(dict.fromkeys(numbers))


def supported_share(answers: Iterable[Iterable[Citation]]) -> float | None:
    """Return the share of sentences naming sources that one of these sources supports.

    Args:
        answers: the citations of each answer. Inferred citations do not count, because they exist
            only where there is support.

    Returns:
        None if no sentence names a source.
    """
    best: dict[tuple[int, Span], float] = {}
    for number, citations in enumerate(answers):
        for citation in citations:
            if not citation.inferred:
                sentence = number, citation.claim
                best[sentence] = max(best.get(sentence, 0.0), citation.support)
    return sum(share >= SUPPORTED for share in best.values()) / len(best) if best else None


def _owner(answer: str, spans: Sequence[Span], at: int) -> int:
    """Return the index of the sentence that a number at a position belongs to."""
    before = max((i for i, (start, _) in enumerate(spans) if start <= at), default=None)
    if before is None:
        return 0
    begins_a_line = "\n" in answer[spans[before][1] : at]
    return before + 1 if begins_a_line and before + 1 < len(spans) else before


class _Quoter:
    """Finds quotes in the sentences of some sources, and weighs words by these sentences."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sentences = {s.number: sentence_spans(s.chunk.text) for s in sources}
        self._names = {s.number: _names(s.chunk, self._sentences[s.number]) for s in sources}
        self._clauses: dict[int, list[Clause]] = {}
        self._sources = sources
        texts = [s.chunk.text[a:b] for s in sources for a, b in self._sentences[s.number]]
        seen = Counter(word for text in texts for word in _words(text))
        self._weights = {word: math.log1p(len(texts) / count) for word, count in seen.items()}
        self._unknown = math.log1p(2 * len(texts))

    def citation(
        self, source: Source, claim: Span, words: frozenset[str], facts: Facts | None = None
    ) -> Citation:
        """Quote a source for a claim; with ``facts``, as an inferred citation."""
        chunk = source.chunk
        (start, end), support = self._quote(source, words, facts)
        start, end = chunk.start + start, chunk.start + end
        return Citation(
            number=source.number,
            document=chunk.document,
            title=source.document.title,
            section=chunk.section,
            pages=source.document.pages_of(start, end),
            start=start,
            end=end,
            quote=source.document.text[start:end],
            chunk=chunk.id,
            claim=claim,
            support=round(support, 3),
            inferred=facts is not None,
        )

    def inferred(self, claim: Span, words: frozenset[str], spoken: str) -> list[Citation]:
        """Return the citation of the source that supports a sentence best, if it is enough."""
        facts, said = facts_of(spoken), clauses(spoken)
        candidates = [
            self.citation(source, claim, words, facts)
            for source in self._sources
            if not said or not misplaced(said, self._clauses_of(source))
        ]
        best = max(candidates, key=lambda citation: citation.support, default=None)
        return [best] if best and best.support >= SUPPORTED else []

    def _clauses_of(self, source: Source) -> list[Clause]:
        """Return the clauses of a source that contain quantities."""
        if source.number not in self._clauses:
            spans, names = self._sentences[source.number], self._names[source.number]
            self._clauses[source.number] = [
                clause
                for (start, end), above in zip(spans, names, strict=True)
                for clause in clauses_of_source(source.chunk.text[start:end], above)
            ]
        return self._clauses[source.number]

    def _quote(
        self, source: Source, words: frozenset[str], facts: Facts | None
    ) -> tuple[Span, float]:
        """Return the shortest span of sentences that supports a claim best, and its support.

        The first of equal spans wins. With ``facts``, only spans that state them count. If no
        sentence shares a word with the claim, the span is the whole source.
        """
        text, spans = source.chunk.text, self._sentences[source.number]
        names = self._names[source.number]
        best: Span = (0, len(text))
        best_value = best_support = 0.0
        for first in range(len(spans)):
            for last in range(first, min(first + MAX_QUOTE_SENTENCES, len(spans))):
                span = spans[first][0], spans[last][1]
                said = f"{names[first]}\n{text[slice(*span)]}"
                support = self._share(words, _words(said))
                value = support - SENTENCE_GAIN * (last - first)
                if value > best_value and (not facts or facts_of(said).support(facts)):
                    best, best_value, best_support = span, value, support
        return best, best_support

    def _share(self, words: frozenset[str], quoted: frozenset[str]) -> float:
        whole = math.fsum(map(self._weight, words))
        return math.fsum(map(self._weight, words & quoted)) / whole if whole else 0.0

    def _weight(self, word: str) -> float:
        return self._weights.get(word, self._unknown)


def _names(chunk: Chunk, sentences: Sequence[Span]) -> list[str]:
    """Return the column names above each sentence that is a table row; empty for the others.

    They belong to what the row says, but not to the quote.
    """
    tables = find_tables(chunk.text)
    first = tables[0].start if tables else len(chunk.text)
    return [
        names_above(tables, start)
        or (chunk.header if start < first and chunk.text[start] == "|" else "")
        for start, _ in sentences
    ]


def _words(text: str) -> frozenset[str]:
    words = map(bare, chain.from_iterable(compounds(text)))
    return frozenset(UNITS.get(word) or word for word in words)  # min is minutes
