"""What a format stage keeps of its rows: their text in a file, and in memory what decisions need.

The columns of a row take about 45 bytes of memory, whatever its length. The lists of positions by
which rows are drawn and written come on top.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from struct import iter_unpack

import msgspec

from llmpipe.formats import Example, read_example
from llmpipe.formats.leakage import question_key, words_of
from llmpipe.formats.provenance import PROVENANCE, Provenance
from llmpipe.formats.records import encode, from_json
from llmpipe.stages.format_lines import Lines

KEY = 16
"""Bytes of the key of an id or a question."""

BATCH = 250
"""Rows that wait to be stored together."""


class _Id(msgspec.Struct, gc=False):
    id: str


class _Identified(msgspec.Struct, rename={"provenance": PROVENANCE}, gc=False):
    provenance: _Id


_IDENTIFIED = msgspec.json.Decoder(_Identified)


class Rows:
    """Rows in the order in which they were read, each known by its position.

    The text of a row is JSON in its natural format, so that most rows are written as they lie here.
    """

    def __init__(self, folder: Path, *, grouped: bool) -> None:
        self._texts, self._asked = Lines(folder), Lines(folder)
        self._waiting: list[tuple[bytes, bytes, int, int, bool]] = []
        self._count = 0
        self._questions = bytearray()
        self._groups = array("q") if grouped else None
        self._group_names: list[bytes] = []
        self._group_numbers: dict[bytes, int] = {}
        self.source = array("H")
        self.line = array("Q")
        self.generated = bytearray()
        self.parents: dict[int, tuple[bytes, ...]] = {}
        """Keys of the ids of the rows that generated rows come from."""

    def __len__(self) -> int:
        return self._count

    def add(
        self,
        text: bytes,
        asked: Sequence[str],
        place: tuple[int, int],
        group: bytes | None = None,
        made: Provenance | None = None,
    ) -> None:
        """Add a row. After the last one, call `store`.

        Args:
            text: the row as JSON.
            asked: the texts that ask.
            place: its source and line.
            group: what it shares with the rows of its group, if rows have groups.
            made: how it was made, if a row can tell.
        """
        generated = False
        if made is not None:
            generated = made.generated
            if made.parents:
                self.parents[self._count] = tuple(map(id_key, made.parents))
        if self._groups is not None:
            self._groups.append(-1 if group is None else self._group_number(group))
        self._waiting.append((text, words_of(asked), *place, generated))
        self._count += 1
        if len(self._waiting) == BATCH:
            self.store()

    def store(self) -> None:
        """Store the rows that wait."""
        if not self._waiting:
            return
        texts, words, sources, lines, generated = zip(*self._waiting, strict=True)
        self._waiting.clear()
        self._texts.add(texts)
        self._asked.add(words)
        self._questions += b"".join(map(question_key, words))
        self.source.extend(sources)
        self.line.extend(lines)
        self.generated += bytes(generated)

    def _group_number(self, group: bytes) -> int:
        number = self._group_numbers.setdefault(group, len(self._group_names))
        if number == len(self._group_names):
            self._group_names.append(group)
        return number

    def question(self, position: int) -> bytes:
        """Return the key of a row's question."""
        return bytes(self._questions[KEY * position : KEY * (position + 1)])

    def questions(self) -> Iterator[bytes]:
        """Yield the key of every row's question."""
        return (key for (key,) in iter_unpack(f"{KEY}s", self._questions))

    def id(self, position: int) -> bytes:
        """Return the key of a row's id. It is read from the row's text."""
        own: str = _IDENTIFIED.decode(self._texts[position]).provenance.id
        return id_key(own)

    def group(self, position: int) -> bytes | None:
        """Return what the rows of a group share, None for a row in no group."""
        number = -1 if self._groups is None else self._groups[position]
        return None if number < 0 else self._group_names[number]

    def units(self, positions: Iterable[int]) -> Iterator[bytes]:
        """Yield what each row stays together with: a group, as JSON, or its question's key."""
        keys, groups, names = self._questions, self._groups, self._group_names
        for i in positions:
            number = -1 if groups is None else groups[i]
            yield bytes(keys[KEY * i : KEY * (i + 1)]) if number < 0 else names[number]

    def texts(self, positions: Sequence[int]) -> Iterator[bytes]:
        """Yield rows as lines of JSON, many at once."""
        return self._texts.blocks(positions)

    def asked(self, positions: Sequence[int]) -> list[bytes]:
        """Return the words of each row's question, a space between."""
        return self._asked.at(positions)

    def columns(self, position: int) -> bytes:
        """Return all columns of a row but for its provenance, as JSON."""
        row = from_json(self._texts[position])
        return encode({name: row[name] for name in sorted(row) if name != PROVENANCE})

    def example(self, position: int) -> Example:
        """Return a row's content."""
        return read_example(from_json(self._texts[position])).example


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

    def turn_away(
        self, rows: Rows, positions: Sequence[int], reasons: Mapping[int, str]
    ) -> Sequence[int]:
        """Reject the rows that have a reason against them, and return the other positions."""
        if not reasons:
            return positions
        for position, reason in reasons.items():
            self.add(rows.source[position], rows.line[position], reason)
        return array("Q", (position for position in positions if position not in reasons))


def id_key(own: str) -> bytes:
    """Return 16 bytes for an id: those that its hex digits spell, or a digest."""
    if len(own) == 2 * KEY:
        try:
            return bytes.fromhex(own)
        except ValueError:
            pass
    return blake2b(own.encode("utf-8", "surrogatepass"), digest_size=KEY).digest()
