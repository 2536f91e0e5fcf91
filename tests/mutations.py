"""Damage data at random: what the programs that fuzz records and requests have in common."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

VALUES: list[Any] = [
    None, True, 0, -1, 1e999, 10**400, 1.5, "", "x", "\0", "../..", "/", "\ud800", "x" * 5000, "é\n",
    [], {}, [None], {"": None}, [[]], {"event": "run-started"}, [{"x": 1}], "0" * 64, "\x1b[2J",
]  # fmt: skip
"""What may stand anywhere in a record where something else belongs."""


def any_value(chance: random.Random) -> Any:
    """Return one of `VALUES`, which may be changed."""
    return copy.deepcopy(chance.choice(VALUES))


def tree_changed(value: Any, chance: random.Random) -> Any:
    """Return JSON data in which one value is another one, is gone, or has another name."""
    places: list[tuple[Any, Any]] = []
    waiting = [value] if isinstance(value, (dict, list)) else []
    while waiting:
        node = waiting.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, below in list(items):
            places.append((node, key))
            if isinstance(below, (dict, list)):
                waiting.append(below)
    if not places or chance.random() < 0.1:
        return any_value(chance)
    node, key = chance.choice(places)
    how = chance.random()
    if how < 0.25:
        del node[key]
    elif how < 0.35 and isinstance(node, dict):
        node[str(any_value(chance))] = node.pop(key)
    elif how < 0.5:
        other, other_key = chance.choice(places)
        node[key] = json.loads(json.dumps(other[other_key])) if other_key in _keys(other) else None
    else:
        node[key] = any_value(chance)
    return value


def _keys(node: Any) -> Any:
    return node if isinstance(node, dict) else range(len(node))


def bytes_changed(data: bytes, chance: random.Random) -> bytes:
    """Return data that is cut off, has other bytes or one other bit, or a part of it twice."""
    how, at = chance.randrange(6), chance.randrange(len(data) + 1)
    if how == 0:
        return data[:at]
    if how == 1 and data:
        at = chance.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
    if how == 2:
        return data[:at] + chance.randbytes(4) + data[at + 4 :]
    if how == 3:
        return data[:at] + b"\0" * chance.randrange(1, 600) + data[at:]
    if how == 4:
        return data[:at] + data[max(0, at - 40) :]
    return chance.choice(
        [b"", b"[" * 99_999, b"\xff\xfe", b"null", b"0", b"{}\n{}\n", b'{"a":' * 9999]
    )
