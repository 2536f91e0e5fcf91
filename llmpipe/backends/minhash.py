"""Find rows that may be near-duplicates: MinHash sketches by rensa, cut into bands.

Two rows are candidates if all values of a band are equal. Bands are chosen for recall: a pair whose
Jaccard similarity is at the threshold is missed once in 500. A caller must verify every candidate.
A row takes four bytes a band.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Keys = NDArray[np.uint32]
    Numbers = NDArray[np.int64]

MISSED = 0.002
"""The share of pairs at the threshold that may be missed."""
MOST_VALUES = 64
"""Values of a sketch. More of them take longer; longer bands make fewer false candidates."""
SEED = 42
_MIX = 0x9E3779B97F4A7C15


def bands_for(threshold: float) -> tuple[int, int]:
    """Return how many bands a sketch has, and how many values each."""
    for values in range(8, 0, -1):
        equal = min(threshold**values, 1 - 1e-9)
        bands = math.ceil(math.log(MISSED) / math.log(1 - equal))
        if bands * values <= MOST_VALUES:
            return bands, values
    return MOST_VALUES, 1


class Sketches:
    """The bands of rows, in the order in which they were added."""

    def __init__(self, threshold: float) -> None:
        self._bands, self._values = bands_for(threshold)
        self._keys: list[Keys] = []

    def add(self, rows: Sequence[Sequence[bytes]]) -> None:
        """Add rows, each as its words; a word may stand in it several times."""
        import numpy as np
        from rensa import RMinHash

        count = self._bands * self._values
        matrix: Any = RMinHash.digest_matrix_from_token_byte_sets(rows, count, SEED)
        values = chain.from_iterable(matrix.to_rows())
        digests = np.fromiter(values, np.uint64, count * len(rows))
        shaped = digests.reshape(len(rows), self._bands, self._values)
        keys = np.zeros(shaped.shape[:2], np.uint64)
        for place in range(self._values):
            keys = (keys ^ shaped[:, :, place]) * np.uint64(_MIX)
            keys ^= keys >> np.uint64(29)
        self._keys.append((keys >> np.uint64(32)).astype(np.uint32))

    def groups(self, keep: NDArray[np.bool_]) -> tuple[Numbers, Numbers]:
        """Return groups of rows that share a band, as the row and the group of each member.

        Args:
            keep: which rows count.

        Returns:
            Two arrays of equal length, sorted by row.
        """
        import numpy as np

        if not self._keys:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        keys = np.concatenate(self._keys)
        self._keys = [keys]
        counted = np.flatnonzero(keep)
        rows: list[Numbers] = []
        groups: list[Numbers] = []
        first = 0
        for band in range(self._bands):
            column = keys[counted, band]
            order = np.argsort(column, kind="stable")
            equal = column[order][1:] == column[order][:-1]
            member = np.append(equal, False) | np.insert(equal, 0, False)
            number = np.cumsum(np.insert(~equal, 0, False))[member]
            rows.append(counted[order[member]])
            groups.append(first + number)
            first += len(counted)
        row, group = np.concatenate(rows), np.concatenate(groups)
        order = np.argsort(row, kind="stable")
        return row[order], group[order]
