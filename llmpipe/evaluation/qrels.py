"""Read questions, relevance judgments and collections: TREC qrels and BEIR files.

TREC: one ``query iteration document relevance`` per line, separated by spaces, or by tabs if ids
contain spaces. BEIR: ``queries.jsonl`` and ``corpus.jsonl`` with ``_id`` and ``text``, and a
tab-separated table of relevance with a header. Blank lines are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from llmpipe.errors import StageError

Qrels = dict[str, dict[str, int]]
"""Relevance by query and document; above 0 means relevant."""


class Passage(msgspec.Struct, frozen=True):
    """A question or a document of a BEIR collection."""

    id: str = msgspec.field(name="_id")
    text: str
    title: str = ""


BEIR_HEADER = ["query-id", "corpus-id", "score"]


def read_qrels(path: Path) -> Qrels:
    """Read relevance judgments in either format; BEIR has a header.

    Raises:
        StageError: a line has the wrong format, or a pair is judged twice with different relevance.
    """
    _, first = next(_lines(path), (0, ""))
    return read_beir_qrels(path) if first.split("\t") == BEIR_HEADER else read_trec_qrels(path)


def line_of(path: Path, query: str, document: str) -> int:
    """Return the line of a qrels file that judges a document for a query, or 0.

    In both formats, the query is the first column and the document the last but one.
    """
    lines = ((n, line.split("\t") if "\t" in line else line.split()) for n, line in _lines(path))
    judged = (n for n, parts in lines if (parts[0], parts[-2]) == (query, document))
    return next(judged, 0)


def read_trec_qrels(path: Path) -> Qrels:
    """Read relevance judgments in TREC's format.

    Raises:
        StageError: a line has the wrong format, or a pair is judged twice with different relevance.
    """
    qrels: Qrels = {}
    for number, line in _lines(path):
        parts = line.split("\t") if "\t" in line else line.split()
        if len(parts) != 4:
            raise _line_error(path, number, "not `query iteration document relevance`")
        query, _, document, relevance = parts
        _judge(qrels, query, document, relevance, (path, number))
    return qrels


def read_beir_qrels(path: Path) -> Qrels:
    """Read relevance judgments in BEIR's format: ``query-id``, ``corpus-id``, ``score``.

    Raises:
        StageError: a line has the wrong format, or a pair is judged twice with different relevance.
    """
    qrels: Qrels = {}
    for place, (number, line) in enumerate(_lines(path)):
        parts = line.split("\t")
        if len(parts) != 3:
            raise _line_error(path, number, "not three columns separated by tabs")
        if place:
            query, document, relevance = parts
            _judge(qrels, query, document, relevance, (path, number))
        elif parts != BEIR_HEADER:
            raise _line_error(path, number, "the header must be query-id, corpus-id, score")
    return qrels


def read_beir_queries(path: Path) -> dict[str, str]:
    """Read BEIR questions by id.

    Raises:
        StageError: a line is not a question, or an id occurs twice.
    """
    return {entry.id: entry.text for entry in _entries(path)}


def read_beir_corpus(path: Path) -> Iterator[Passage]:
    """Yield the documents of a BEIR collection.

    Raises:
        StageError: a line is not a document, or an id occurs twice.
    """
    return _entries(path)


def _judge(
    qrels: Qrels, query: str, document: str, relevance: str, place: tuple[Path, int]
) -> None:
    try:
        level = int(relevance)
    except ValueError:
        raise _line_error(*place, f"the relevance {relevance!r} is not an integer") from None
    if qrels.setdefault(query, {}).setdefault(document, level) != level:
        raise _line_error(
            *place, f"{document!r} is judged twice for {query!r}, with different relevance"
        )


def _entries(path: Path) -> Iterator[Passage]:
    seen: set[str] = set()
    for number, line in _lines(path):
        try:
            entry = msgspec.json.decode(line, type=Passage)
        except msgspec.MsgspecError as error:
            raise _line_error(path, number, f"not an entry of a collection: {error}") from None
        if entry.id in seen:
            raise _line_error(path, number, f"the id {entry.id!r} occurs twice")
        seen.add(entry.id)
        yield entry


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers."""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StageError(f"{path} cannot be read: {error}") from None


def _line_error(path: Path, number: int, message: str) -> StageError:
    return StageError(f"{path}:{number}: {message}")
