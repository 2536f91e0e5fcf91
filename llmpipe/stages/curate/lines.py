"""Lines of text in a temporary file, each known by its position: the rows of a curate stage.

Only where each line ends is kept in memory: 8 bytes a line.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

BLOCK = 1 << 18
"""Bytes that are read at once."""


class Lines:
    """Lines in the order in which they were added. A line holds no line feed."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._ends = array("Q", [0])
        """How many bytes all lines before each position have, line feeds aside."""

    def add(self, lines: Sequence[bytes]) -> None:
        """Add lines at the end."""
        self._file.write(b"\n".join([*lines, b""]))
        self._ends.extend(accumulate(map(len, lines), initial=self._ends.pop()))

    def __getitem__(self, position: int) -> bytes:
        """Return a line."""
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
        return b"".join(self.blocks(positions)).split(b"\n")[:-1]

    def _read(self, first: int, last: int) -> bytes:
        """Return the lines from ``first`` to before ``last``, each with its line feed."""
        start, end = self._ends[first] + first, self._ends[last] + last
        self._file.seek(start)
        return self._file.read(end - start)
