"""The ``sharegpt`` format: ``conversations``, a list of turns with ``from`` and ``value``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmpipe.formats.chat import require_turns
from llmpipe.formats.message import Message, missing_column, read_turns, system_column, with_system

NAMES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "tool": "tool",
    "observation": "tool",
}
"""The names of speakers in data sets of this format, and the role of each."""

_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}


def matches(row: Mapping[str, Any]) -> bool:
    """Whether the row's columns are those of this format."""
    return isinstance(row.get("conversations"), list)


def to_chat(row: Mapping[str, Any]) -> list[Message]:
    """Read the turns; a ``system`` column beside them becomes the first one, as in some sets."""
    if "conversations" not in row:
        raise missing_column(row, "conversations")
    turns = read_turns(row["conversations"], "conversations", "from", "value", NAMES)
    return with_system(turns, system_column(row))


def from_chat(messages: list[Message]) -> dict[str, Any]:
    """Write the turns with ShareGPT's names for the speakers (``human``, ``gpt``)."""
    require_turns(messages, "sharegpt")
    return {
        "conversations": [
            {"from": _SPEAKERS[message["role"]], "value": message["content"]}
            for message in messages
        ]
    }
