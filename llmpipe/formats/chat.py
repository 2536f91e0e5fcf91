"""The ``messages`` format: turns with ``role`` and ``content``, as chat APIs take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmpipe.formats.message import (
    ROLES,
    Message,
    RowError,
    UnusableRowError,
    missing_column,
    read_turns,
    system_column,
    with_system,
)

NAMES = {role: role for role in ROLES} | {"developer": "system"}
"""The names of speakers in rows of this format, and the role of each."""


def matches(row: Mapping[str, Any]) -> bool:
    """Whether the row's columns are those of this format."""
    return isinstance(row.get("messages"), list)


def to_chat(row: Mapping[str, Any]) -> list[Message]:
    """Read the turns; a ``system`` column beside them becomes the first one, as in some sets.

    Other keys of a turn (``name``, ``weight`` …) are left behind.
    """
    if "messages" not in row:
        raise missing_column(row, "messages")
    turns = read_turns(row["messages"], "messages", "role", "content", NAMES)
    return with_system(turns, system_column(row))


def from_chat(messages: list[Message]) -> dict[str, Any]:
    """Write the turns as they are; a text without a user turn is no conversation."""
    require_turns(messages, "messages")
    return {"messages": messages}


def require_turns(messages: list[Message], name: str) -> None:
    """Refuse what has nobody asking or nobody answering.

    Raises:
        RowError: there is no user turn.
        UnusableRowError: the last turn is not the assistant's.
    """
    if not any(message["role"] == "user" for message in messages):
        raise RowError(
            f"a text without a user turn cannot become a {name} row",
            hint="use `to: completion`, or name the user and assistant columns under `map`",
        )
    if messages[-1]["role"] != "assistant":
        raise UnusableRowError("no answer", f"the last turn is the {messages[-1]['role']}'s")
