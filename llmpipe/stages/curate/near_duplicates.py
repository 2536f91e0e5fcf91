"""Drop rows that repeat another one, word for word or nearly.

Rows are looked at from the best to the worst, in an order that depends on their content alone, and
one is dropped if it is a duplicate of a row that was kept. So the order of the input changes
nothing, and every dropped row is at or above the threshold with the one that is named as kept. With
clusters by connected pairs, the ends of a chain could have little in common.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple

from llmpipe.backends.minhash import Sketches
from llmpipe.formats.leakage import normalize
from llmpipe.stages.curate.explain import Explanation
from llmpipe.stages.curate.pool import NO_STEP, Drop, Pool, raised
from llmpipe.stages.curate.shared_text import Shared, find_shared
from llmpipe.stages.curate.steps import NearDuplicates
from llmpipe.stages.curate.words import Wording, differences, normal_words
from llmpipe.stages.format_columns import ScatteredLines

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

KEY = 16
BATCH = 500
"""Rows that are sketched together."""
MOST = 200
"""Kept rows with which a row is compared."""
REMEMBERED = 4096
"""Kept rows whose words stay in memory for the next comparison."""
LONGEST_REMEMBERED = 2000
"""Words of a row above which they do not."""


def run(step: NearDuplicates, pool: Pool) -> Mapping[str, Any]:
    """Drop the duplicates among the rows that are left; return the metrics."""
    shared = find_shared(pool) if step.leave_out_shared else Shared()
    compared = _read(step, pool, shared)
    exact = compared.exact()
    search = _Search(step, pool, compared, shared)
    near, not_compared = _near(search, pool, compared, exact)
    positions = pool.kept
    drops: dict[int, Drop] = {}
    for row, equal in exact.items():
        if equal in near:  # the row that it equals resembles a better one
            near[row] = near[equal]
            continue
        drops[positions[row]] = Drop(
            "duplicate",
            "says the same as a kept row",
            NO_STEP,
            1.0,
            pool.place(positions[equal]),
        )
    for row, (kept, score) in near.items():
        drops[positions[row]] = Drop(
            "near_duplicate",
            f"shares {score:.0%} of its words with a kept row",
            raised("threshold above", score),
            score,
            pool.place(positions[kept]),
        )
    sizes = Counter(str(drop.beside) for drop in drops.values())
    pool.drop(drops)
    return {
        "duplicates": len(drops) - len(near),
        "near_duplicates": len(near),
        "clusters": len(sizes),
        "largest_cluster": 1 + max(sizes.values(), default=0),
        "not_compared": not_compared,
        "protected": dict(sorted(search.protected.items())),
        "short_rows": compared.short,
        "left_out": shared.told,
        "threshold": search.explanation.metrics(step.threshold, compared.sizes),
    }


class _Compared:
    """The rows as they are compared: their words in a file, and in memory what groups them."""

    def __init__(self, pool: Pool, threshold: float) -> None:
        self.words = ScatteredLines(pool.work)
        self.sketches = Sketches(threshold)
        self.sizes = array("I")
        """Different words of each row; 0 for one that is too short to be compared by them."""
        self.sketched = array("Q")
        """The rows that have a sketch."""
        self.short = 0
        self._keys = bytearray()
        self._lengths = array("I")
        self._pool = pool

    def add(self, key: bytes, words: Iterable[bytes], length: int, size: int) -> None:
        self._keys += key
        self.sizes.append(size)
        self._lengths.append(length)
        self.short += not size

    def ranks(self) -> Numbers:
        """Return the rank of each row: the best is the one to keep."""
        import numpy as np

        rows, kept = self._pool.rows, np.asarray(self._pool.kept, np.int64)
        generated = np.frombuffer(bytes(rows.generated), np.uint8)[kept]
        key = np.asarray(rows.key)[kept]
        ranks = np.empty(len(kept), np.int64)
        order = np.lexsort((key, -np.asarray(self._lengths, np.int64), generated))
        ranks[order] = np.arange(len(kept))
        return ranks

    def exact(self) -> dict[int, int]:
        """Return the rows that say the same as another, each with that one."""
        import numpy as np

        if not self._keys:
            return {}
        parts = np.frombuffer(bytes(self._keys), ">u8").reshape(-1, 2)
        order = np.lexsort((self.ranks(), parts[:, 1], parts[:, 0]))
        same = np.append(False, (parts[order][1:] == parts[order][:-1]).all(axis=1))
        first = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
        return dict(zip(order[same].tolist(), order[first[same]].tolist(), strict=True))


def _read(step: NearDuplicates, pool: Pool, shared: Shared) -> _Compared:
    """Read every row that is left: what it says, its words and its sketch."""
    compared = _Compared(pool, step.threshold)
    lines: list[bytes] = []
    sketched: list[list[bytes]] = []
    for number, (_, said) in enumerate(pool.each_said("comparing rows")):
        turns = [(turn.role.encode(), *normal_words(turn.text)) for turn in said]
        whole = b"\x1e".join([b"%b\x1f%b" % (role, normal) for role, normal, _ in turns])
        key = hashlib.blake2b(whole, digest_size=KEY).digest()
        is_turn = [turn.is_turn for turn in said]
        own = shared.split(compress(said, is_turn))[0] if shared.parts else None
        words = own or [word for _, _, words in compress(turns, is_turn) for word in words]
        size = len({*words})
        is_short = size < step.short
        compared.add(key, words, len(whole), 0 if is_short else size)
        lines.append(b" ".join(words))
        if not is_short:
            compared.sketched.append(number)
            sketched.append(words)
        if len(lines) == BATCH:
            compared.words.add(lines)
            lines = []
        if len(sketched) == BATCH:
            compared.sketches.add(sketched)
            sketched = []
    compared.words.add(lines)
    if sketched:
        compared.sketches.add(sketched)
    return compared


def _near(
    search: _Search, pool: Pool, compared: _Compared, exact: Mapping[int, int]
) -> tuple[dict[int, tuple[int, float]], int]:
    """Return the rows that resemble a kept one, with that one and the score.

    Also return how many rows had more candidates than they were compared with.
    """
    dropped: dict[int, tuple[int, float]] = {}
    holders: dict[int, list[int]] = {}
    not_compared = 0
    for done, (row, groups) in enumerate(_candidates(compared, exact)):
        if done % 10_000 == 0:
            pool.tell(done, len(compared.sketched), "verifying near-duplicates")
        others, is_all = _most_alike([holders[group] for group in groups if group in holders])
        not_compared += not is_all
        best = search.best(row, others) if others else None
        if best is not None:
            dropped[row] = best
            continue
        for group in groups:
            holders.setdefault(group, []).append(row)
    return dropped, not_compared


def _most_alike(bands: list[list[int]]) -> tuple[Iterable[int], bool]:
    """Return the kept rows that share a band, at most `MOST`, and whether these are all.

    Rows from a template share bands with all others. The bands that fewest rows have tell more.

    Args:
        bands: the kept rows that have each band of a row, the best first.
    """
    found: dict[int, None] = {}
    for rows in sorted(bands, key=len):
        for other in rows:
            if len(found) == MOST and other not in found:
                return found, False
            found[other] = None
    return found, True


def _candidates(compared: _Compared, exact: Mapping[int, int]) -> Iterator[tuple[int, list[int]]]:
    """Yield the rows that share a band with others, the best first, with those bands."""
    import numpy as np

    numbers = np.asarray(compared.sketched, np.int64)
    keep = np.ones(len(numbers), bool)
    if exact:
        keep = ~np.isin(numbers, np.fromiter(exact, np.int64, len(exact)))
    rows, groups = compared.sketches.groups(keep)
    several, starts = np.unique(rows, return_index=True)
    ends = np.append(starts[1:], len(rows))
    for i in np.argsort(compared.ranks()[numbers[several]]):
        yield int(numbers[several[i]]), groups[starts[i] : ends[i]].tolist()


class _Search:
    """Compares a row with kept ones, word by word."""

    def __init__(
        self, step: NearDuplicates, pool: Pool, compared: _Compared, shared: Shared
    ) -> None:
        self._shared = shared
        self.protected: Counter[str] = Counter()
        self.explanation = Explanation(pool)
        self._step, self._pool, self._compared = step, pool, compared
        self._remembered = lru_cache(REMEMBERED)(self._words)
        self._rows = lru_cache(REMEMBERED)(self._read)

    def best(self, row: int, others: Iterable[int]) -> tuple[int, float] | None:
        """Return the row of ``others`` that ``row`` is most like, and the score."""
        sizes, threshold = self._compared.sizes, self._step.threshold
        size, mine = sizes[row], None
        found: tuple[int, float] | None = None
        for other in others:
            if min(size, sizes[other]) < threshold * max(size, sizes[other]):
                continue
            mine = mine or self._words(row)
            theirs = self._of_kept(other)
            both = len(mine & theirs)
            score = both / (size + sizes[other] - both)
            if score < threshold:
                self.explanation.below(score, row, other)
            elif (found is None or score > found[1]) and self._is_duplicate(row, other):
                found = other, score
        if found is not None:
            self.explanation.above(found[1], row, found[0])
        return found

    def _of_kept(self, row: int) -> frozenset[bytes]:
        is_long = self._compared.sizes[row] > LONGEST_REMEMBERED
        return self._words(row) if is_long else self._remembered(row)

    def _words(self, row: int) -> frozenset[bytes]:
        return frozenset(self._compared.words[row].split(b" "))

    def _is_duplicate(self, row: int, other: int) -> bool:
        """Return whether rows differ in nothing that is protected, or have the same answer."""
        one, another = self._row(row), self._row(other)
        differ = [name for name, value in one.beside.items() if value != another.beside[name]]
        if differ:
            self.protected.update(differ[:1])
            return False
        if one.answers and one.answers == another.answers:
            return True
        protected = differences(one.wording, another.wording, self._step.protect)
        self.protected.update(protected)
        return not protected

    def _row(self, row: int) -> _Row:
        is_long = self._compared.sizes[row] > LONGEST_REMEMBERED
        return self._read(row) if is_long else self._rows(row)

    def _read(self, row: int) -> _Row:
        said = self._pool.rows.said(self._pool.kept[row])
        turns = [turn for turn in said if turn.is_turn]
        beside: dict[str, Sequence[bytes | str]] = {
            # The same text with another task before it is another row.
            "templates": self._shared.split(turns)[1] if self._shared.parts else [],
            "tools": [turn.text for turn in said if not turn.is_turn],
            "labels": [turn.text for turn in said if turn.role == "label"],
        }
        answers = [normalize(turn.text) for turn in turns if turn.answers]
        return _Row(beside, answers, Wording.of(turn.text for turn in turns))


class _Row(NamedTuple):
    """What decides whether a row that resembles another one is a duplicate."""

    beside: Mapping[str, Sequence[bytes | str]]
    """What no duplicates differ in, whatever the spec protects."""
    answers: list[str]
    wording: Wording
