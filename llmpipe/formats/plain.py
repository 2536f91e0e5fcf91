"""Plain rows: turns of a known speaker and a text, with nothing beside them that an example holds.

Most rows of most data sets are plain. They are read here in one step; `read_example` and the checks
behind it read all rows, and a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llmpipe.formats.provenance import PROVENANCE, row_id
from llmpipe.formats.row import EMPTY
from llmpipe.formats.turn import NAMES

_ROLES = {name: role for name, role in NAMES.items() if name != "function_call"}
_NOT_PLAIN = frozenset({"system", "tools", "chosen", "rejected", PROVENANCE})
"""Columns beside which turns are read by all rules."""


class _Turn(msgspec.Struct, gc=False):
    role: str
    content: str


class _Id(msgspec.Struct, gc=False):
    id: str


class _Row(msgspec.Struct, rename={"provenance": PROVENANCE}, gc=False):
    messages: list[_Turn]
    provenance: _Id


_is_blank = str.isspace  # of anything but a text it is a TypeError


class PlainRow(msgspec.Struct, gc=False):
    """A plain row as a format stage keeps it.

    Attributes:
        row: the row in the format ``messages``.
        asked: the texts that ask.
        left: the columns that are left behind.
    """

    row: msgspec.Struct
    asked: list[str]
    left: tuple[str, ...]


def read_plain(row: Mapping[str, Any]) -> PlainRow | None:
    """Return a row that is plain and can be trained on, None for any other row."""
    column = "conversations" if "conversations" in row else "messages"
    given = row.get(column)
    if type(given) is not list or not _NOT_PLAIN.isdisjoint(row):
        return None
    turns: list[_Turn] = []
    asked: list[str] = []
    try:
        speaker, text = ("from", "value") if "from" in given[0] else ("role", "content")
        for turn in given:
            role, content = _ROLES[turn[speaker]], turn[text]
            if len(turn) != 2 or not content or _is_blank(content):
                return None
            turns.append(_Turn(role, content))
            if role == "user":
                asked.append(content)
    except (IndexError, KeyError, TypeError):
        return None
    if not asked or role != "assistant":
        return None
    left: tuple[str, ...] = ()
    for name, value in row.items():
        if name != column and (value or value not in EMPTY):
            left = (*left, name)
    return PlainRow(_Row(turns, _Id(row_id(row))), asked, left)
