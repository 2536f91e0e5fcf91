"""What a format stage keeps of its rows: their text in a file, and in memory what decisions need.

A row takes about 90 bytes of memory, whatever its length.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

from llmpipe.formats import Example, read_example
from llmpipe.formats.leakage import Compared
from llmpipe.formats.provenance import Provenance
from llmpipe.formats.records import from_json

KEY = 16
"""Bytes of a key of `llmpipe.formats.leakage`."""


class Rows:
    """Rows in the order in which they were read, each known by its position.

    The text of a row is JSON in its natural format, so that most rows are written as they lie here.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=1 << 20)  # noqa: SIM115
        self._start, self._asked = array("Q", [0]), array("Q")
        self._end = 0
        self._flushed = False
        self._contents, self._questions, self._ids = bytearray(), bytearray(), bytearray()
        self._groups = array("q")
        self._group_names: list[bytes] = []
        self._group_numbers: dict[bytes, int] = {}
        self.source = array("H")
        self.line = array("Q")
        self.words = array("I")
        """How many words each row's question has."""
        self.generated = bytearray()
        self.parents: dict[int, tuple[bytes, ...]] = {}
        """Keys of the ids of the rows that generated rows come from."""

    def __len__(self) -> int:
        return len(self.line)

    def add(
        self,
        text: bytes,
        place: tuple[int, int],
        keys: Compared,
        provenance: Provenance,
        group: bytes | None,
    ) -> None:
        """Add a row.

        Args:
            text: the row as JSON.
            place: its source and line.
            keys: what it is compared by.
            provenance: its id and parents.
            group: what it shares with the rows of its group.
        """
        asked = keys.asked.encode("utf-8", "surrogatepass")
        self._flushed = False
        self._file.write(text + asked)
        self._end += len(text)
        self._asked.append(self._end)
        self._end += len(asked)
        self._start.append(self._end)
        self.source.append(place[0])
        self.line.append(place[1])
        self._contents += keys.content
        self._questions += keys.question
        self._ids += id_key(provenance.id)
        self.words.append(keys.asked.count(" ") + 1)
        self.generated.append(provenance.generated)
        if provenance.parents:
            self.parents[len(self) - 1] = tuple(map(id_key, provenance.parents))
        self._groups.append(-1 if group is None else self._group_number(group))

    def _group_number(self, group: bytes) -> int:
        number = self._group_numbers.setdefault(group, len(self._group_names))
        if number == len(self._group_names):
            self._group_names.append(group)
        return number

    def content(self, position: int) -> bytes:
        """Return the key of a row's whole content."""
        return bytes(self._contents[KEY * position : KEY * (position + 1)])

    def question(self, position: int) -> bytes:
        """Return the key of a row's question."""
        return bytes(self._questions[KEY * position : KEY * (position + 1)])

    def id(self, position: int) -> bytes:
        """Return the key of a row's id."""
        return bytes(self._ids[KEY * position : KEY * (position + 1)])

    def group(self, position: int) -> bytes | None:
        """Return what the rows of a group share, None for a row in no group."""
        number = self._groups[position]
        return None if number < 0 else self._group_names[number]

    def text(self, position: int) -> bytes:
        """Return a row as JSON."""
        return self._read(self._start[position], self._asked[position])

    def asked(self, position: int) -> str:
        """Return the words of a row's question, a space between."""
        text = self._read(self._asked[position], self._start[position + 1])
        return text.decode("utf-8", "surrogatepass")

    def _read(self, start: int, end: int) -> bytes:
        if not self._flushed:
            self._file.flush()
            self._flushed = True
        return os.pread(self._file.fileno(), end - start, start)

    def example(self, position: int) -> Example:
        """Return a row's content."""
        return read_example(from_json(self.text(position))).example


class Rejects:
    """The rows that were turned away: their places and the reasons. The rows lie in the sources."""

    def __init__(self) -> None:
        self.reasons: dict[tuple[int, int], str] = {}

    def __len__(self) -> int:
        return len(self.reasons)

    def add(self, source: int, line: int, reason: str) -> None:
        """Reject one row."""
        self.reasons[source, line] = reason

    def counts(self) -> dict[str, int]:
        """Return the number of rows for every reason, sorted by reason."""
        return dict(sorted(Counter(self.reasons.values()).items()))

    def partition(
        self, rows: Rows, positions: Sequence[int], reasons: Iterable[str | None]
    ) -> Sequence[int]:
        """Return the positions that have no reason against them, and turn the others away."""
        kept = array("Q")
        for position, reason in zip(positions, reasons, strict=True):
            if reason is None:
                kept.append(position)
            else:
                self.add(rows.source[position], rows.line[position], reason)
        return kept


def id_key(own: str) -> bytes:
    """Return 16 bytes for an id: those that its hex digits spell, or a digest."""
    if len(own) == 2 * KEY:
        try:
            return bytes.fromhex(own)
        except ValueError:
            pass
    return blake2b(own.encode("utf-8", "surrogatepass"), digest_size=KEY).digest()
