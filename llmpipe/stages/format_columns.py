"""Columns of rows in temporary files: what a stage knows of its rows, outside its memory.

A `Lines` column holds a line of text a row, which is read in the order in which it was added; in
memory is only where the blocks of lines begin. A `ScatteredLines` column is read anywhere, and
keeps 8 bytes a line in memory. A `Records` column holds a record of fixed width a row.
"""

from __future__ import annotations

import tempfile
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from pathlib import Path
from struct import Struct
from typing import Any

TOGETHER = 1 << 15
"""Records that are read at once."""
BLOCK = 1 << 18
"""Bytes of scattered lines that are read at once."""


class _Bytes:
    """A file that is written at its end and read anywhere."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self.size = 0
        self._is_at_end = True

    def add(self, data: bytes | bytearray) -> None:
        if not self._is_at_end:
            self._file.seek(self.size)
            self._is_at_end = True
        self.size += self._file.write(data)

    def read(self, start: int, end: int) -> bytes:
        self._is_at_end = False
        self._file.seek(start)
        return self._file.read(end - start)


class Lines:
    """Lines of bytes, each known by its position. A line holds no line feed.

    They are read as they were added, in blocks. Of single lines those are found quickly that stand
    in the block of the last one.
    """

    def __init__(self, folder: Path) -> None:
        self._bytes = _Bytes(folder)
        self._starts = array("Q", [0])
        self._firsts = array("Q", [0])
        self._at_hand: tuple[int, list[bytes]] = (-1, [])

    def __len__(self) -> int:
        return self._firsts[-1]

    def add(self, block: bytes | bytearray, count: int) -> None:
        """Add a block of so many lines at the end, each with its line feed."""
        self._bytes.add(block)
        self._starts.append(self._bytes.size)
        self._firsts.append(self._firsts[-1] + count)

    def blocks(self) -> Iterator[tuple[range, bytes]]:
        """Yield all blocks, each with the positions of its lines."""
        for number, first in enumerate(self._firsts[:-1]):
            yield range(first, self._firsts[number + 1]), self._block(number)

    def __iter__(self) -> Iterator[bytes]:
        """Yield all lines, without line feeds."""
        return chain.from_iterable(split_block(block) for _, block in self.blocks())

    def __getitem__(self, position: int) -> bytes:
        """Return a line, without its line feed."""
        number = bisect_right(self._firsts, position) - 1
        if self._at_hand[0] != number:
            self._at_hand = number, split_block(self._block(number))
        return self._at_hand[1][position - self._firsts[number]]

    def _block(self, number: int) -> bytes:
        return self._bytes.read(self._starts[number], self._starts[number + 1])


class ScatteredLines:
    """Lines of bytes, each known by its position and read by itself. A line holds no line feed."""

    def __init__(self, folder: Path) -> None:
        self._bytes = _Bytes(folder)
        self._ends = array("Q", [0])
        """How many bytes all lines before each position have, line feeds aside."""

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, lines: Sequence[bytes]) -> None:
        """Add lines at the end."""
        self._bytes.add(b"\n".join([*lines, b""]))
        self._ends.extend(accumulate(map(len, lines), initial=self._ends.pop()))

    def __getitem__(self, position: int) -> bytes:
        """Return a line, without its line feed."""
        return self._read(position, position + 1)[:-1]

    def blocks(self, positions: Sequence[int]) -> Iterator[bytes]:
        """Yield the lines at positions, each with its line feed; those that follow each other are
        read together.
        """
        ends = self._ends
        first = last = full = 0
        for position in positions:
            if position == last and ends[last] < full:
                last += 1
                continue
            if last > first:
                yield self._read(first, last)
            first, last, full = position, position + 1, ends[position] + BLOCK
        if last > first:
            yield self._read(first, last)

    def at(self, positions: Sequence[int]) -> list[bytes]:
        """Return the lines at positions, without line feeds."""
        return split_block(b"".join(self.blocks(positions)))

    def _read(self, first: int, last: int) -> bytes:
        """Return the lines from ``first`` to before ``last``, each with its line feed."""
        return self._bytes.read(self._ends[first] + first, self._ends[last] + last)


def split_block(block: bytes) -> list[bytes]:
    """Return the lines of a block, without line feeds."""
    lines = block.split(b"\n")
    lines.pop()
    return lines


def stretches(chosen: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Yield the stretches of ones among ones and zeros, each from its start to behind its end."""
    start = chosen.find(1)
    while start >= 0:
        stop = chosen.find(0, start)
        stop = len(chosen) if stop < 0 else stop
        yield start, stop
        start = chosen.find(1, stop)


class Records:
    """Records of one field each, all of equal width, each known by its position."""

    def __init__(self, folder: Path, field: str) -> None:
        self._bytes = _Bytes(folder)
        self._record = Struct(field)

    def __len__(self) -> int:
        return self._bytes.size // self._record.size

    def add(self, packed: bytes | bytearray) -> None:
        """Add packed records at the end."""
        self._bytes.add(packed)

    def __getitem__(self, position: int) -> Any:
        """Return the value of a record."""
        width = self._record.size
        return self._record.unpack(self._bytes.read(width * position, width * (position + 1)))[0]

    def some(self, positions: range) -> Iterator[Any]:
        """Yield the values of records that follow each other."""
        width = self._record.size
        packed = self._bytes.read(width * positions.start, width * positions.stop)
        return chain.from_iterable(self._record.iter_unpack(packed))

    def __iter__(self) -> Iterator[tuple[Any]]:
        """Yield all records, each as a tuple of its value."""
        step = self._record.size * TOGETHER
        blocks = (
            self._bytes.read(start, min(start + step, self._bytes.size))
            for start in range(0, self._bytes.size, step)
        )
        return chain.from_iterable(map(self._record.iter_unpack, blocks))
