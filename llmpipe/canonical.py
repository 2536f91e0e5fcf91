"""Canonical JSON: one text and one digest for equal values, as cache keys need; and JSON leaves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

Path = tuple[str | int, ...]
"""The keys and positions that lead to a value inside JSON data."""

_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)
_PLAIN = frozenset({str, int, bool, type(None)})


def canonical_json(value: Any) -> str:
    """Return JSON text that is the same for equal values: sorted keys, ``1.0`` as ``1``.

    Raises:
        TypeError: The value is not JSON. Keys never contain pickled objects.
        ValueError: The value contains infinity or not-a-number.
    """
    return _ENCODER.encode(canonical(value))


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def canonical(value: Any) -> Any:
    """Return a copy of JSON data in canonical form: sorted keys, lists instead of tuples.

    Raises:
        TypeError: A mapping has a key that is not a string.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, (dict, Mapping)):  # dict first: the abstract class is slow
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
    """Yield each leaf value of JSON data with its path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from leaves(item, (*path, i))
    else:
        yield path, value
