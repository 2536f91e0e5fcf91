"""What a format stage keeps of its rows: columns in files, and in memory a few bytes for each row.

`Rows` holds what was read, `Fates` what becomes of each row, `Rejects` what was turned away.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import compress, count
from pathlib import Path

import msgspec

from llmpipe.formats import Example, read_example
from llmpipe.formats.leakage import KEY, question_key, words_of
from llmpipe.formats.provenance import PROVENANCE, Provenance
from llmpipe.formats.records import encode, from_json
from llmpipe.stages.format_columns import Lines, Records, stretches

BATCH = 250
"""Rows that are stored together, unless they are large."""

LARGE = 100_000
"""Bytes of text that are stored together though they are fewer rows: what a cache holds."""

TRAIN = "train"
"""The part of all rows that nothing else becomes of."""


class _Id(msgspec.Struct, gc=False):
    id: str


class _Identified(msgspec.Struct, rename={"provenance": PROVENANCE}, gc=False):
    provenance: _Id


_IDENTIFIED = msgspec.json.Decoder(_Identified)
_encode_into = msgspec.json.Encoder().encode_into


class Rows:
    """Rows in the order in which they were read, each known by its position.

    The text of a row is JSON in its natural format, so that most rows are written as they lie here.
    """

    def __init__(self, folder: Path, *, grouped: bool) -> None:
        self._texts, self._asked = Lines(folder), Lines(folder)
        self._ends, self._lines = Records(folder, "Q"), Records(folder, "Q")
        self.questions = Records(folder, f"{KEY}s")
        """The key of each row's question."""
        self._groups = Lines(folder) if grouped else None
        self.units = Records(folder, f"{KEY}s") if grouped else self.questions
        """The key of what each row stays together with: its group, or its question."""
        self._parents = Lines(folder)
        self.generated = bytearray()
        """For each row, 1 if a model made it, and otherwise 0."""
        self._firsts = array("Q")
        """The position of the first row of each source."""
        # What waits to be stored: the rows' texts, and a list a column.
        self._text = bytearray()
        self._waiting: list[tuple[bytes, int, int, bytes]] = []
        self._children: list[bytes] = []

    def __len__(self) -> int:
        return len(self.generated)

    def add(
        self,
        row: msgspec.Struct | msgspec.Raw,
        asked: Sequence[str],
        place: tuple[int, int],
        group: bytes | None = None,
        made: Provenance | None = None,
    ) -> None:
        """Add a row. After the last one, call `store`.

        Args:
            row: the row in its natural format, or its JSON.
            asked: the texts that ask.
            place: its source and line. Sources come one after the other.
            group: what it shares with the rows of its group, if rows have groups.
            made: how it was made, if a row can tell.
        """
        source, line = place
        text, waiting = self._text, self._waiting
        while len(self._firsts) <= source:
            self._firsts.append(len(self))
        if made is not None and made.parents:
            keys = " ".join(id_key(parent).hex() for parent in made.parents)
            self._children.append(b"%d %b\n" % (len(self), keys.encode()))
        self.generated.append(made is not None and made.generated)
        _encode_into(row, text, -1)
        text += b"\n"
        waiting.append((words_of(asked), len(text), line, group or b""))
        if len(waiting) == BATCH or len(text) >= LARGE:
            self.store()

    def store(self) -> None:
        """Store the rows that wait."""
        if not self._waiting:
            return
        words, ends, lines, groups = zip(*self._waiting, strict=True)
        number = len(words)
        self._texts.add(self._text, number)
        self._asked.add(b"\n".join([*words, b""]), number)
        self._ends.add(array("Q", ends).tobytes())
        self._lines.add(array("Q", lines).tobytes())
        questions = list(map(question_key, words))
        self.questions.add(b"".join(questions))
        if self._groups is not None:
            self._groups.add(b"\n".join([*groups, b""]), number)
            both = zip(groups, questions, strict=True)
            self.units.add(b"".join([key_of(group) if group else key for group, key in both]))
        if self._children:
            self._parents.add(b"".join(self._children), len(self._children))
        self._waiting.clear()
        self._children.clear()
        self._text.clear()

    def source(self, position: int) -> int:
        """Return the number of a row's source."""
        return bisect_right(self._firsts, position) - 1

    def positions_of(self, source: int) -> range:
        """Return the positions of a source's rows."""
        firsts = [*self._firsts, *[len(self)] * (source + 2 - len(self._firsts))]
        return range(firsts[source], firsts[source + 1])

    def line(self, position: int) -> int:
        """Return a row's line in its source."""
        line: int = self._lines[position]
        return line

    def lines(self) -> Iterator[int]:
        """Yield the line of every row in its source."""
        return (line for (line,) in self._lines)

    def id(self, position: int) -> bytes:
        """Return the key of a row's id. It is read from the row's text."""
        own: str = _IDENTIFIED.decode(self._texts[position]).provenance.id
        return id_key(own)

    def group(self, position: int) -> bytes | None:
        """Return what the rows of a group share, as JSON; None for a row in no group."""
        return None if self._groups is None else self._groups[position] or None

    def groups(self) -> Iterator[bytes]:
        """Yield what each row shares with its group; nothing if it is in none."""
        return iter(self._groups or ())

    def drawn_by(self) -> Iterator[bytes]:
        """Yield what each row is drawn by: its group, as JSON, or its question's key."""
        keys = (key for (key,) in self.questions)
        if self._groups is None:
            return keys
        return (group or key for group, key in zip(self._groups, keys, strict=True))

    @property
    def has_parents(self) -> bool:
        """Whether a row comes from others."""
        return bool(self._parents)

    def parents(self) -> Iterator[tuple[int, list[bytes]]]:
        """Yield the rows with parents, each with the keys of their ids."""
        for line in self._parents:
            position, *keys = line.split()
            yield int(position), [bytes.fromhex(key.decode()) for key in keys]

    def texts(self, chosen: bytes | bytearray) -> Iterator[memoryview]:
        """Yield chosen rows as lines of JSON, those together that follow each other.

        Args:
            chosen: for each row, 1 if it is chosen, and otherwise 0.
        """
        for positions, block in self._texts.blocks():
            ends, view = [0, *self._ends.some(positions)], memoryview(block)
            for start, stop in stretches(chosen[positions.start : positions.stop]):
                yield view[ends[start] : ends[stop]]

    def asked(self) -> Iterator[tuple[range, bytes]]:
        """Yield the words of rows' questions as lines, many at once, with their positions."""
        return self._asked.blocks()

    def words(self, position: int) -> bytes:
        """Return the words of a row's question, a space between."""
        return self._asked[position]

    def columns(self, position: int) -> bytes:
        """Return all columns of a row but for its provenance, as JSON."""
        row = from_json(self._texts[position])
        return encode({name: row[name] for name in sorted(row) if name != PROVENANCE})

    def example(self, position: int) -> Example:
        """Return a row's content."""
        return read_example(from_json(self._texts[position])).example


class Fates:
    """What becomes of each row: the part that it goes to, or the reason why it goes to none.

    At first all rows go to `TRAIN`. A row takes one byte.
    """

    def __init__(self, rows: int) -> None:
        self._names = [TRAIN]
        self._codes = bytearray(rows)

    def give(self, fate: str, positions: Iterable[int]) -> None:
        """Let rows have another fate."""
        code, codes = self._code(fate), self._codes
        for position in positions:
            codes[position] = code

    def __getitem__(self, position: int) -> str:
        """Return the fate of a row."""
        return self._names[self._codes[position]]

    def of(self, fate: str) -> bytes:
        """Return for each row 1 if that is its fate, and otherwise 0."""
        code = self._code(fate)
        return bytes(self._codes.translate(bytes(each == code for each in range(256))))

    def positions(self, fate: str) -> Iterator[int]:
        """Yield the rows whose fate that is now."""
        return compress(count(), self.of(fate))

    def count(self, fate: str) -> int:
        """Return how many rows have a fate."""
        return self._codes.count(self._code(fate))

    def others(self, parts: Iterable[str]) -> Iterator[tuple[int, str]]:
        """Yield the rows that go to none of the parts, each with its fate."""
        going = {self._code(part) for part in parts}
        away = self._codes.translate(bytes(code not in going for code in range(256)))
        return ((i, self[i]) for i in compress(count(), away))

    def _code(self, fate: str) -> int:
        if fate not in self._names:
            self._names.append(fate)
        return self._names.index(fate)


class Rejects:
    """The rows that were turned away: their places and the reasons. The rows lie in the sources.

    A line takes one byte, up to the last line of a source that was turned away.
    """

    def __init__(self) -> None:
        self._codes: dict[int, bytearray] = {}
        self._reasons: list[str] = []

    def __len__(self) -> int:
        return sum(self.counts().values())

    def add(self, source: int, line: int, reason: str) -> None:
        """Reject one row."""
        if reason not in self._reasons:
            self._reasons.append(reason)
        codes = self._codes.setdefault(source, bytearray())
        codes += bytes(max(0, line + 1 - len(codes)))
        codes[line] = self._reasons.index(reason) + 1

    def counts(self) -> dict[str, int]:
        """Return the number of rows for every reason, sorted by reason."""
        counts = {
            reason: sum(codes.count(code) for codes in self._codes.values())
            for code, reason in enumerate(self._reasons, 1)
        }
        return {reason: counts[reason] for reason in sorted(counts) if counts[reason]}

    def turn_away(self, rows: Rows, fates: Fates, parts: Iterable[str]) -> None:
        """Reject the rows that go to none of the parts."""
        for position, reason in fates.others(parts):
            self.add(rows.source(position), rows.line(position), reason)

    def of(self, source: int) -> bool:
        """Return whether a row of a source was rejected."""
        return source in self._codes

    def reason(self, source: int, line: int) -> str | None:
        """Return why a line was rejected, None if it was not."""
        codes = self._codes.get(source, b"")
        code = codes[line] if line < len(codes) else 0
        return self._reasons[code - 1] if code else None


def id_key(own: str) -> bytes:
    """Return 16 bytes for an id: those that its hex digits spell, or a digest."""
    if len(own) == 2 * KEY:
        try:
            return bytes.fromhex(own)
        except ValueError:
            pass
    return key_of(own.encode("utf-8", "surrogatepass"))


def key_of(text: bytes) -> bytes:
    """Return 16 bytes that equal texts share."""
    return blake2b(text, digest_size=KEY).digest()
