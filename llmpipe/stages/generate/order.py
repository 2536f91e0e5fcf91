"""Walk the numbers below a size in a random order that takes no memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

_ROUNDS = 4


def shuffled(size: int, *key: int | str) -> Iterator[int]:
    """Yield each number below ``size`` once, in an order that ``key`` and ``size`` determine.

    The order is a Feistel network on the smallest even number of bits that holds all numbers. What
    it maps beyond ``size`` is mapped again. The next number costs the same, however large the size.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    secret = hashlib.blake2b(repr(key).encode(), digest_size=32).digest()
    for number in range(size):
        place = _mapped(number, half, secret)
        while place >= size:
            place = _mapped(place, half, secret)
        yield place


def _mapped(number: int, half: int, secret: bytes) -> int:
    mask = (1 << half) - 1
    left, right = number >> half, number & mask
    for step in range(_ROUNDS):
        mixed = hashlib.blake2b(b"%d %d" % (step, right), key=secret, digest_size=8).digest()
        left, right = right, left ^ (int.from_bytes(mixed, "big") & mask)
    return left << half | right
