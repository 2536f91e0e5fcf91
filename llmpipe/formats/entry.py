"""What is kept of a row while a training set is made, and of the rows that are turned away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Entry:
    """A row between reading and writing: packed as JSON, with what the decisions go by.

    ``source`` and ``line`` say where it comes from. ``content`` and ``question`` are the keys of
    `llmpipe.formats.leakage`; ``seed`` is the digest of the row that a generated one was made from.
    """

    source: int
    line: int
    packed: bytes
    content: bytes
    question: bytes
    group: bytes | None
    generated: bool
    seed: str | None


@dataclass(slots=True)
class Rejects:
    """The rows that were turned away: source, line, reason, and the row packed as JSON."""

    rows: list[tuple[int, int, str, bytes]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, source: int, line: int, reason: str, packed: bytes) -> None:
        """Turn one row away."""
        self.rows.append((source, line, reason, packed))

    def counts(self) -> dict[str, int]:
        """Give the number of rows for every reason, sorted by reason."""
        return dict(sorted(Counter(reason for _, _, reason, _ in self.rows).items()))

    def partition(self, entries: Sequence[Entry], reasons: Iterable[str | None]) -> list[Entry]:
        """Give the entries that have no reason against them, and turn the others away."""
        kept = []
        for entry, reason in zip(entries, reasons, strict=True):
            if reason is None:
                kept.append(entry)
            else:
                self.add(entry.source, entry.line, reason, entry.packed)
        return kept
