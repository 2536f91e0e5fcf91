"""What a curate stage knows of its rows: their text in a file, and in memory about 45 bytes a row.

A row keeps its columns, and has its provenance beside them. The steps compare its turns: those of
the example that its columns hold, or one for each of the columns that the spec names.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from llmpipe.formats import read_example
from llmpipe.formats.labeled import Labeled
from llmpipe.formats.preference import Preference
from llmpipe.formats.provenance import PROVENANCE, read_provenance
from llmpipe.formats.records import Row, encode, from_json
from llmpipe.formats.row import text_column
from llmpipe.formats.text import Text
from llmpipe.formats.turn import Turn
from llmpipe.stages.format_columns import ScatteredLines
from llmpipe.stages.format_rows import id_key

TOGETHER = 250
"""Rows that are read from the file together."""

TOOLS = "(tools)"
"""The role of what stands beside the turns: the tools that a model may call. No column has it."""

REJECTED = "rejected"
"""The role of an answer that a model learns to avoid."""

NOT_ANSWERS = frozenset({"system", "user", "tool", TOOLS})
"""The roles whose turns are what an answer answers."""

T = TypeVar("T")

_IN_ORDER = msgspec.json.Encoder(enc_hook=float, order="deterministic")


class Said(NamedTuple):
    """One turn: its role, all of its text, and where the text behind its thoughts begins."""

    role: str
    text: str
    begin: int = 0

    @property
    def answers(self) -> bool:
        """Whether it is what a model learns to answer, or what its answer is judged by."""
        return self.role not in NOT_ANSWERS

    @property
    def is_turn(self) -> bool:
        """Whether it is a turn, and not what stands beside them."""
        return self.role != TOOLS


_ENCODE = msgspec.json.Encoder().encode
_DECODE = msgspec.json.Decoder(list[Said]).decode


class Rows:
    """Rows in the order in which they were read, each known by its position.

    Attributes:
        source: the number of each row's source.
        line: its line there.
        generated: whether a model made it.
        key: eight bytes of its id as a number, which order rows by their content.
    """

    def __init__(self, folder: Path, columns: Sequence[str] = ()) -> None:
        self._texts, self._said = ScatteredLines(folder), ScatteredLines(folder)
        self._waiting: list[tuple[bytes, bytes]] = []
        self._replaced: dict[int, int] = {}
        """Of each row that was replaced, the line that holds it now."""
        self._columns = columns
        self.source = array("H")
        self.line = array("Q")
        self.key = array("Q")
        self.generated = bytearray()

    def __len__(self) -> int:
        return len(self.line)

    def add(self, row: Row, source: int, line: int) -> None:
        """Add a row. After the last one, call `store`.

        Raises:
            RowError: the row has no turns, or its provenance is malformed.
        """
        said = self._turns(row)
        made = read_provenance(row)
        columns = {name: value for name, value in row.items() if name != PROVENANCE}
        text = encode({**columns, PROVENANCE: made.column()})
        self._waiting.append((text, _ENCODE(said)))
        self.source.append(source)
        self.line.append(line)
        self.key.append(int.from_bytes(id_key(made.id)[:8], "big"))
        self.generated.append(made.generated)
        if len(self._waiting) == TOGETHER:
            self.store()

    def store(self) -> None:
        """Store the rows that wait."""
        if self._waiting:
            texts, said = zip(*self._waiting, strict=True)
            self._texts.add(texts)
            self._said.add(said)
        self._waiting.clear()

    def replace(self, position: int, row: Row) -> None:
        """Put a row in the place of one that was stored. It keeps its provenance.

        Raises:
            RowError: the row has no turns.
        """
        said = self._turns(row)
        self._replaced[position] = len(self._texts)
        self._texts.add([encode(row)])
        self._said.add([_ENCODE(said)])

    def texts(self, positions: Sequence[int]) -> Iterator[bytes]:
        """Yield rows as lines of JSON, many at once."""
        return self._texts.blocks(self._lines(positions))

    def each(self, positions: Sequence[int]) -> Iterator[tuple[int, Row]]:
        """Yield rows with their positions, without holding them all."""
        return self._each(self._texts, from_json, positions)

    def each_said(self, positions: Sequence[int]) -> Iterator[tuple[int, list[Said]]]:
        """Yield the turns of rows with their positions, without holding them all."""
        return self._each(self._said, _DECODE, positions)

    def said(self, position: int) -> list[Said]:
        """Return the turns of a row."""
        return _DECODE(self._said[self._replaced.get(position, position)])

    def _lines(self, positions: Sequence[int]) -> Sequence[int]:
        """Return which lines hold the rows at positions."""
        replaced = self._replaced
        return [replaced.get(at, at) for at in positions] if replaced else positions

    def _each(
        self, lines: ScatteredLines, read: Callable[[bytes], T], positions: Sequence[int]
    ) -> Iterator[tuple[int, T]]:
        waiting = iter(positions)
        while batch := list(islice(waiting, TOGETHER)):
            found = lines.at(self._lines(batch))
            yield from zip(batch, map(read, found), strict=True)

    def _turns(self, row: Mapping[str, Any]) -> list[Said]:
        if self._columns:
            return [Said(name, text_column(row, name, blank=True)) for name in self._columns]
        example = read_example(row).example
        said = [_said(turn) for turn in example.said()]
        if isinstance(example, Preference):
            said[-1] = said[-1]._replace(role=REJECTED)
        elif isinstance(example, Labeled) and not example.label:
            said[-2] = said[-2]._replace(role=REJECTED)
        if not isinstance(example, Text) and example.tools:
            said.append(Said(TOOLS, _IN_ORDER.encode(example.tools).decode()))
        return said


def _said(turn: Turn) -> Said:
    if turn.is_plain:
        return Said(turn.role, turn.text, _thought(turn.text))
    calls = _IN_ORDER.encode(turn.tool_calls).decode() if turn.tool_calls else None
    thought = len(turn.reasoning_content) + 1 if turn.reasoning_content else 0
    text = "\n".join(filter(None, (turn.reasoning_content, turn.text, calls)))
    return Said(turn.role, text, thought + _thought(turn.text))


def _thought(text: str) -> int:
    """Return where the thoughts end that a text begins with."""
    if not text.lstrip().startswith("<think>"):
        return 0
    return text.find("</think>") + len("</think>") if "</think>" in text else 0
