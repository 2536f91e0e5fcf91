"""JSON data: its one canonical text and digest, what cache keys are made of, and its leaves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

Path = tuple[str | int, ...]
"""Where a value stands inside JSON data."""

_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)
_PLAIN = frozenset({str, int, bool, type(None)})


def canonical_json(value: Any) -> str:
    """Give JSON text that is the same for equal values: sorted keys, ``1.0`` as ``1``.

    Raises:
        TypeError: the value is not JSON; nothing is ever pickled into a key.
        ValueError: it holds infinity or not-a-number.
    """
    return _ENCODER.encode(canonical(value))


def digest(value: Any) -> str:
    """Give the SHA-256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def canonical(value: Any) -> Any:
    """Give JSON data in the form that all equal values have, as a copy: sorted keys, no tuples.

    Raises:
        TypeError: a mapping has a key that is not a text.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, (dict, Mapping)):  # dict first: to ask an abstract class is slow
        for key in value:
            if not isinstance(key, str):
                raise TypeError("a key that is not a text cannot enter a cache key")
        return {
            key: item if type(item) in _PLAIN else canonical(item)
            for key, item in sorted(value.items())
        }
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in value]
    return value


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Give the single values of JSON data with the ways to them."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from leaves(item, (*path, i))
    else:
        yield path, value
