"""An index of held-out rows that finds which runs of words or questions of theirs a row has.

A row that shares a run of words shares a stretch of bytes. Rows are first looked up by such
stretches, many at once; only where one is known are runs compared word by word.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint64]

BITS = 26
"""The table of stretches has two to this power bits: 8 MB."""
_MIX = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)


Whole = Literal["question", "answer"]


class Compared(NamedTuple):
    """A turn as it is compared."""

    asks: bool
    """Whether it is a question."""
    words: list[bytes]
    """All of its words."""
    runs: list[list[bytes]]
    """Those that many held-out rows do not share, in runs that stand together."""

    @property
    def own(self) -> list[bytes]:
        """The words of all runs."""
        return self.runs[0] if len(self.runs) == 1 else [w for run in self.runs for w in run]


class Overlap(NamedTuple):
    """What a row shares with a held-out one."""

    held_out: int
    """The number of the held-out row."""
    words: bytes
    """The words that both have."""
    share: float
    """How much of the held-out row they are, in runs; 1 for a whole turn."""
    whole: Whole | None = None
    """Which turn they are all of, if they are not a run of words."""


class HeldOut:
    """Held-out rows: their runs of words, turns without one, and shortest questions."""

    def __init__(self, length: int, fewest: int) -> None:
        self._length, self._fewest = length, fewest
        self._texts: list[bytes] = []
        self._hashes, self._owners = array("q"), array("I")
        self._runs: Counter[int] = Counter()
        self._turns: dict[bytes, tuple[int, Whole]] = {}
        self._shortest: dict[bytes, int] = {}
        self.count = 0
        self.uncompared = 0
        """Rows that nothing can be compared with."""

    def add(self, turns: Iterable[Compared]) -> None:
        """Add a row. After the last one, call `finish`."""
        compared = [self._add_runs(turn) or self._add_whole(turn) for turn in turns]
        self.count += 1
        self.uncompared += not any(compared)

    def _add_runs(self, turn: Compared) -> bool:
        """Add the runs of a turn that are long enough; return whether there are any."""
        long = [words for words in turn.runs if len(words) >= self._length]
        for words in long:
            self._texts.append(b" ".join(words))
            runs = [hash(run) for run in _runs(words, self._length)]
            self._hashes.extend(runs)
            self._owners.extend([self.count] * len(runs))
            self._runs[self.count] += len(runs)
        return bool(long)

    def _add_whole(self, turn: Compared) -> bool:
        """Add a turn as a whole, with what it shares and without; return whether it counts.

        A short answer does not: many questions have it.
        """
        own = turn.own
        if not own or (not turn.asks and len(own) < self._length):
            return False
        for words in (turn.words, own):
            text = b" ".join(words)
            if len(words) >= self._fewest:
                self._turns.setdefault(text, (self.count, "question" if turn.asks else "answer"))
            else:
                self._shortest.setdefault(text, self.count)
        return True

    def finish(self) -> None:
        """Build the index."""
        import numpy as np

        hashes = np.frombuffer(self._hashes, np.int64) if self._hashes else np.zeros(0, np.int64)
        order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[order]
        self._owner = np.asarray(self._owners, np.int64)[order]
        shortest = min(map(len, self._texts), default=0)
        counts = Counter(word for text in self._turns for word in {*text.split(b" ")})
        self._by_word: dict[bytes, list[bytes]] = {}
        for text in self._turns:
            rarest = min(text.split(b" "), key=lambda word: (counts[word], -len(word), word))
            self._by_word.setdefault(rarest, []).append(text)
        runs = (r for text in self._texts for r in _runs(text.split(b" "), self._length))
        shortest = min(map(len, runs), default=0)
        self._parts = min(3, (shortest + 1) // 16)  # a run of 2n - 1 bytes contains n aligned ones
        self._table = np.zeros(1 << (BITS - 3), np.uint8)
        whole = b"\n".join(self._texts)
        for start in range(8 * self._parts):
            for places in _stretches(whole[start:], self._parts):
                np.bitwise_or.at(self._table, places >> np.uint64(3), _bit(places))
        self._texts.clear()

    def overlaps(self, rows: Sequence[Sequence[Compared]]) -> dict[int, Overlap]:
        """Return what rows share with held-out ones, by their place among ``rows``."""
        texts = [b"\n".join(b" ".join(turn.words) for turn in turns) for turns in rows]
        found: dict[int, Overlap] = {}
        for place in self._near(texts):
            if (shared := self._shared_run([turn.words for turn in rows[place]])) is not None:
                found[place] = shared
        if not (self._turns or self._shortest):
            return found
        for place, turns in enumerate(rows):
            if place not in found and (whole := self._whole(turns)) is not None:
                found[place] = whole
        return found

    def _near(self, texts: Sequence[bytes]) -> Iterable[int]:
        """Return the places of the texts that have a known stretch of bytes."""
        import numpy as np

        if not len(self._sorted):
            return ()
        if not self._parts:
            return range(len(texts))
        first, second = (
            self._table[places >> np.uint64(3)] & _bit(places)
            for places in _stretches(b"\n".join(texts), self._parts)
        )
        known = np.flatnonzero((first != 0) & (second != 0))
        ends = list(accumulate(len(text) + 1 for text in texts))
        size = 8 * self._parts
        starts = {bisect_right(ends, at * size) for at in known.tolist()}
        return sorted(place for place in starts if place < len(texts))

    def _shared_run(self, turns: Iterable[list[bytes]]) -> Overlap | None:
        """Return the first run that is shared with the held-out row that shares most of them."""
        import numpy as np

        shared: Counter[int] = Counter()
        first: dict[int, bytes] = {}
        for words in turns:
            if len(words) < self._length:
                continue
            runs = dict.fromkeys(_runs(words, self._length))
            hashes = np.fromiter(map(hash, runs), np.int64, len(runs))
            low = np.searchsorted(self._sorted, hashes, "left")
            high = np.searchsorted(self._sorted, hashes, "right")
            for run, start, end in zip(runs, low.tolist(), high.tolist(), strict=True):
                for owner in {*self._owner[start:end].tolist()} if end > start else ():
                    shared[owner] += 1
                    first.setdefault(owner, run)
        if not shared:
            return None
        owner = min(shared, key=lambda each: (-shared[each], each))
        share = min(1.0, shared[owner] / self._runs[owner])
        return Overlap(owner, first[owner], share)

    def _whole(self, turns: Sequence[Compared]) -> Overlap | None:
        """Return a held-out turn that a row contains, or a very short question that it asks."""
        for turn in turns:
            text = b" ".join(turn.words)
            if turn.asks and text in self._shortest:
                return Overlap(self._shortest[text], text, 1.0, "question")
            if self._by_word.keys().isdisjoint(turn.words):
                continue
            for words in (turn.words,) if len(turn.runs) == 1 else (turn.words, turn.own):
                padded = b" %b " % b" ".join(words)
                for word in sorted(self._by_word.keys() & words):
                    for held in self._by_word[word]:
                        if b" %b " % held in padded:
                            number, whole = self._turns[held]
                            return Overlap(number, held, 1.0, whole)
        return None


def _runs(words: Sequence[bytes], length: int) -> Iterable[bytes]:
    return (b" ".join(words[i : i + length]) for i in range(len(words) - length + 1))


def _stretches(text: bytes, parts: int) -> tuple[Hashes, Hashes]:
    """Return two places in the table for each aligned stretch of 8 × ``parts`` bytes of a text."""
    import numpy as np

    count = len(text) // (8 * parts)
    numbers = np.frombuffer(text, "<u8", count * parts).reshape(count, parts)
    mixed = np.zeros(count, np.uint64)
    for part in range(parts):
        mixed = (mixed ^ numbers[:, part]) * np.uint64(_MIX[part])
        mixed ^= mixed >> np.uint64(31)
    return mixed >> np.uint64(64 - BITS), mixed & np.uint64((1 << BITS) - 1)


def _bit(places: Hashes) -> NDArray[np.uint8]:
    import numpy as np

    return (np.uint8(1) << (places & np.uint64(7)).astype(np.uint8)).astype(np.uint8)
