"""Find what many rows share: system messages, prompts, templates. It says nothing of a single row.

Whole turns, whole lines, and the words that turns begin or end with are counted in a sample of rows
that depends on their content alone. What is frequent there is a template if the rest of the rows
that have it differs. Copies of one text share their parts, too, but their rest is alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby, islice, pairwise
from operator import itemgetter
from typing import Any, NamedTuple

from llmpipe.formats.leakage import normalize
from llmpipe.stages.curate.pool import Pool
from llmpipe.stages.curate.rows import Said
from llmpipe.stages.curate.words import compared_words

SAMPLE = 2000
"""Rows that are looked at."""
LEAST, SHARE = 20, 0.01
"""How many of them share a text that is left out: this many, and this share."""
FEWEST_WORDS = 3
"""Words of a line that counts as one."""
LENGTHS = (*range(4, 64), *range(64, 257, 4))
"""Words of the beginnings and ends that are counted."""
LOOKED_AT = 2000
"""Words of a turn in the sample that are looked at."""
COMPARED = 64
"""Rows with a frequent text whose rest is compared."""
ALIKE, FEWEST_OWN = 0.5, 3
"""Rows are copies of each other if the rest of them has this score of Jaccard's, on average, or has
fewer words than this."""
SHOWN = 60
"""Letters that are shown of a text that is left out."""


class Part(NamedTuple):
    """A part of a turn: where it stands, the turn's role, and its words."""

    where: str
    role: str
    words: bytes


class Turn(NamedTuple):
    """A turn: its role, its words, and how many each of its lines has."""

    role: str
    words: list[bytes]
    lines: list[int]

    @classmethod
    def of(cls, said: Said, most: int | None = None) -> Turn:
        """Return a turn, or no more than its first ``most`` words."""
        lines = [compared_words(normalize(line)) for line in said.text.split("\n")]
        words = [word for line in lines for word in line]
        return cls(said.role, words[:most], [len(line) for line in lines])

    def parts(self) -> Iterator[tuple[int, Part]]:
        """Yield the lines, each with the place of its first word."""
        start = 0
        for count in self.lines:
            yield start, Part("line", self.role, b" ".join(self.words[start : start + count]))
            start += count


@dataclass(frozen=True)
class Shared:
    """The texts that many rows share, and what is told of each."""

    parts: frozenset[Part] = frozenset()
    told: list[Mapping[str, Any]] = field(default_factory=list)

    def split(self, said: Iterable[Said]) -> tuple[list[bytes], list[bytes]]:
        """Return the words of a row that are its own, and those that many rows share."""
        own: list[bytes] = []
        shared: list[bytes] = []
        for turn in map(Turn.of, said):
            for word, is_own in zip(turn.words, self._own(turn), strict=True):
                (own if is_own else shared).append(word)
        return own, shared

    def runs(self, turn: Turn) -> list[list[bytes]]:
        """Return the words of a turn that are its own, in runs that stand together."""
        words = groupby(zip(turn.words, self._own(turn), strict=True), key=itemgetter(1))
        return [[word for word, _ in run] for is_own, run in words if is_own]

    def own(self, turns: Iterable[Turn]) -> set[bytes]:
        """Return the different words that a row does not share with many."""
        return {w for t in turns for w, own in zip(t.words, self._own(t), strict=True) if own}

    def _own(self, turn: Turn) -> list[bool]:
        """Return which of a turn's words are its own."""
        role, words, count = turn.role, turn.words, len(turn.words)
        if Part("turn", role, b" ".join(words)) in self.parts:
            return [False] * count
        own = [True] * count
        for start, line in turn.parts() if ("line", role) in self._lengths else ():
            if line in self.parts:
                length = line.words.count(b" ") + 1
                own[start : start + length] = [False] * length
        for length in self._lengths.get(("beginning", role), ()):
            if length <= count and Part("beginning", role, b" ".join(words[:length])) in self.parts:
                own[:length] = [False] * length
                break
        for length in self._lengths.get(("end", role), ()):
            if length <= count and Part("end", role, b" ".join(words[-length:])) in self.parts:
                own[-length:] = [False] * length
                break
        return own

    @cached_property
    def _lengths(self) -> Mapping[tuple[str, str], list[int]]:
        """The lengths of beginnings and ends that there are, the longest first."""
        found: dict[tuple[str, str], set[int]] = {}
        for where, role, words in self.parts:
            found.setdefault((where, role), set()).add(words.count(b" ") + 1)
        return {place: sorted(lengths, reverse=True) for place, lengths in found.items()}


def find_shared(pool: Pool) -> Shared:
    """Return what many of the rows that are left share."""
    sample = _sample(pool)
    least = max(LEAST, SHARE * len(sample))
    if len(sample) < least:
        return Shared()
    holders: dict[Part, list[int]] = {}
    for count_parts in (_whole, *(_edges(length) for length in LENGTHS)):
        found: dict[Part, list[int]] = {}
        for number, turns in enumerate(sample):
            for part in {*count_parts(turns, holders)}:
                found.setdefault(part, []).append(number)
        frequent = {part: rows for part, rows in found.items() if len(rows) >= least}
        holders |= frequent
        if count_parts is not _whole and not frequent:
            break
    edges = Shared(frozenset(part for part in holders if part.where != "line"))
    rests = [edges.own(turns) for turns in sample]
    parts = {part: rows for part, rows in holders.items() if _is_template(part, rows, rests)}
    return Shared(frozenset(parts), _told(parts, len(sample)))


def _sample(pool: Pool) -> list[list[Turn]]:
    import numpy as np

    kept = np.asarray(pool.kept, np.int64)
    order = np.argsort(np.asarray(pool.rows.key)[kept], kind="stable")[:SAMPLE]
    rows = pool.rows.each_said(kept[order].tolist())
    return [[Turn.of(each, LOOKED_AT) for each in said if each.is_turn] for _, said in rows]


def _whole(turns: Sequence[Turn], known: Mapping[Part, Any]) -> Iterator[Part]:
    """Yield the turns and lines of a row."""
    for turn in turns:
        yield Part("turn", turn.role, b" ".join(turn.words))
        for _, line in turn.parts() if len(turn.lines) > 1 else ():
            if line.words.count(b" ") + 1 >= FEWEST_WORDS:
                yield line


def _edges(length: int) -> Any:
    """Return what yields the first and last words of turns, where fewer of them are frequent."""
    before = max((each for each in LENGTHS if each < length), default=0)

    def parts(turns: Sequence[Turn], known: Mapping[Part, Any]) -> Iterator[Part]:
        for role, words, _ in turns:
            if len(words) <= length:
                continue
            if not before or Part("beginning", role, b" ".join(words[:before])) in known:
                yield Part("beginning", role, b" ".join(words[:length]))
            if not before or Part("end", role, b" ".join(words[-before:])) in known:
                yield Part("end", role, b" ".join(words[-length:]))

    return parts


def _is_template(part: Part, rows: Sequence[int], rests: Sequence[set[bytes]]) -> bool:
    """Return whether what the rows that have a part do not share with many differs."""
    if not part.words:
        return False
    own = frozenset(part.words.split(b" ")) if part.where == "line" else frozenset()
    left = [rests[row] - own for row in islice(rows, COMPARED)]
    scores = [len(a & b) / len(a | b) if a | b else 1.0 for a, b in pairwise(left)]
    usual = sorted(map(len, left))[len(left) // 2]
    return usual >= FEWEST_OWN and sum(scores) < ALIKE * len(scores)


def _told(parts: Mapping[Part, Sequence[int]], total: int) -> list[Mapping[str, Any]]:
    """Return what is left out, the most frequent first; of those that begin alike the longest."""
    longest = [p for p in parts if not any(_extends(other, p) for other in parts)]
    told: list[Mapping[str, Any]] = []
    for part in sorted(longest, key=lambda p: (-len(parts[p]), p)):
        text = part.words.decode("utf-8", "replace")
        shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
        share = round(len(parts[part]) / total, 4)
        told.append({"where": part.where, "role": part.role, "words": shown, "share": share})
    return told


def _extends(one: Part, other: Part) -> bool:
    """Return whether a part is a longer form of another one."""
    if one.where != other.where or one.role != other.role or one == other:
        return False
    if one.where == "beginning":
        return one.words.startswith(other.words + b" ")
    return one.where == "end" and one.words.endswith(b" " + other.words)
