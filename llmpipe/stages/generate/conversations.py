"""Read the conversations that a method makes new ones of, each with its provenance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmpipe.contracts import Artifact
from llmpipe.errors import StageError
from llmpipe.formats import Conversation
from llmpipe.formats.example import read_conversation
from llmpipe.formats.mapping import ColumnMap
from llmpipe.formats.provenance import PROVENANCE, Provenance, read_provenance
from llmpipe.formats.records import read_rows, row_digest
from llmpipe.formats.row import RowError, UnusableRowError


@dataclass(frozen=True, slots=True)
class SourceConversation:
    """A row that is a conversation."""

    digest: str
    """The SHA-256 of the row, which determines every random draw for it."""
    provenance: Provenance
    place: str
    """Where the row is: ``rows.jsonl:3``."""
    conversation: Conversation
    columns: Mapping[str, Any]
    """The row as it was read."""


def read_conversations(
    source: Artifact,
    columns: ColumnMap | None,
    warn: Callable[[str], None],
    *,
    required: Callable[[Conversation], bool] = lambda conversation: True,
) -> list[SourceConversation]:
    """Return the conversations of a file, each row once.

    Args:
        source: The file.
        columns: The columns to read; known formats need none.
        warn: Called with how many rows are not used, and why.
        required: Whether a conversation can be used.

    Raises:
        StageError: A row cannot be read (its line is named), or the file has no usable row.
    """
    found: dict[str, SourceConversation] = {}
    unusable: list[str] = []
    repeated: list[str] = []
    for place, row in _read(source):
        try:
            conversation = read_conversation(row, columns)
            provenance = read_provenance(row)
        except UnusableRowError:
            unusable.append(place)
            continue
        except RowError as error:
            raise StageError(f"{place}: {error.message}", hint=error.hint) from None
        bare = {name: value for name, value in row.items() if name != PROVENANCE}
        digest = row_digest(bare)
        if not required(conversation):
            unusable.append(place)
        elif digest in found:
            repeated.append(place)
        else:
            found[digest] = SourceConversation(digest, provenance, place, conversation, bare)
    for places, what in ((unusable, "without a question or an answer"),
                         (repeated, "that repeat another")):  # fmt: skip
        if places:
            warn(f"{source.label}: rows {what}, not used: {len(places)} (first: {places[0]})")
    if not found:
        raise StageError(
            f"{source.label} has no conversation to start from",
            hint="a row needs a question and its answer: a known format, or map:",
        )
    return list(found.values())


def _read(source: Artifact) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for line, row in read_rows(source.path, source.label):
        yield f"{source.label}:{line}", row
