"""Which of many keys are equal, in a memory that does not grow with their number.

A key is 16 bytes of a digest, so that keys are spread evenly. They lie in a file, and are compared
in ranges of about `TOGETHER`, each of which is read in a pass over all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import compress, count

from llmpipe.stages.format_columns import Records

TOGETHER = 1 << 19
"""Keys that are compared together, which takes about 60 MB."""

Selector = bytes | bytearray
"""One byte for each key or row: whether it counts."""

Range = tuple[bytes, bytes]
"""The least key of a range, and what is above all of its keys."""


def ranges(keys: int) -> Iterator[Range]:
    """Yield ranges that together hold all keys, about `TOGETHER` of so many in each."""
    many = max(1, -(-keys // TOGETHER))
    bounds = [(2**32 * number // many).to_bytes(5, "big")[1:] for number in range(many)]
    yield from zip(bounds, [*bounds[1:], b"\xff" * 17], strict=True)


def repeated(keys: Records) -> bytearray:
    """Return for each key 1 if another equals it, and otherwise 0."""
    found = bytearray(len(keys))
    for low, high in ranges(len(keys)):
        here = [key for (key,) in keys if low <= key < high]
        once = set(here)
        if len(once) == len(here):
            continue
        several: set[bytes] = set()
        for key in here:
            if key in once:
                once.remove(key)
            else:
                several.add(key)
        for position, (key,) in enumerate(keys):
            if key in several:
                found[position] = 1
    return found


def repeats(keys: Records, rows: Selector, replaceable: Selector) -> Iterator[int]:
    """Yield the rows whose key equals that of a preferred row: the first that is not replaceable,
    or where all are, the first.

    Args:
        keys: the keys of some rows.
        rows: for each row, whether it has a key.
        replaceable: for each row, whether it is.
    """
    for low, high in ranges(len(keys)):
        preferred: dict[bytes, int] = {}
        for position, (key,) in zip(compress(count(), rows), keys, strict=True):
            if low <= key < high:
                holder = preferred.setdefault(key, position)
                if replaceable[holder] and not replaceable[position]:
                    preferred[key] = position
        for position, (key,) in zip(compress(count(), rows), keys, strict=True):
            if low <= key < high and preferred[key] != position:
                yield position


def more_often(most: int, keys: Records, among: Selector) -> Iterator[tuple[bytes, int]]:
    """Yield the keys that occur more than ``most`` times, each with how often.

    Args:
        most: how often a key may occur.
        keys: the keys.
        among: for each key, whether it counts.
    """
    for low, high in ranges(among.count(1)):
        here = Counter([key for (key,) in compress(keys, among) if low <= key < high])
        yield from ((key, often) for key, often in here.items() if often > most)
