"""A conversation as a model is trained on it: whole turns, and the tools on offer.

The other readers here take who speaks and what they say. Training reads the rest of a turn as well
(``tool_calls``, ``name``, whether to train on it), so a turn keeps all its keys as written; only
speaker and text get the names ``role`` and ``content``. Roles that no reader knows pass through:
a chat template may have its own. Images and other parts that are not text are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmpipe.formats import FormatName, alpaca, chat, detect, sharegpt
from llmpipe.formats.message import RowError, kind_of, system_column, with_system

Turn = dict[str, Any]

COLUMNS: Mapping[FormatName, frozenset[str]] = {
    "messages": frozenset({"messages", "system", "tools"}),
    "sharegpt": frozenset({"conversations", "system", "tools"}),
    "alpaca": frozenset({"instruction", "input", "output", "system", "tools"}),
}
"""The columns that a conversation is read from, by the row's format."""

NAMES: Mapping[str, str] = {**chat.NAMES, **sharegpt.NAMES}
"""The names of speakers that are known, and the role of each."""

TURN_KEYS = frozenset(
    {"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content"}
)
"""Keys of a turn that chat templates commonly read."""

AS_WRITTEN: Mapping[str, str] = {}
"""Roles for `read_turns_whole` that rename no speaker."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """The turns of a conversation in order, and the tools that the assistant may call."""

    messages: list[Turn]
    tools: list[Any] | None = None


def read_conversation(row: Mapping[str, Any], *, rename: bool = True) -> Conversation:
    """Read a row in the format ``messages``, ``sharegpt`` or ``alpaca``.

    A turn may be blank: that is for the caller to judge.

    Args:
        row: the row; a ``system`` column becomes the first turn.
        rename: whether speakers get the names of their roles (``human`` → ``user``).

    Raises:
        RowError: the row is in none of these formats, or a column or turn holds the wrong thing.
    """
    name = detect(row)
    roles = NAMES if rename else AS_WRITTEN
    if name == "alpaca":
        messages = [dict(turn) for turn in alpaca.to_chat(row, blank=True)]
    elif name == "sharegpt":
        messages = with_system(
            read_turns_whole(row["conversations"], "conversations", roles), system_column(row)
        )
    elif name == "messages":
        messages = with_system(
            read_turns_whole(row["messages"], "messages", roles), system_column(row)
        )
    else:
        raise RowError(f"no conversation in the columns {', '.join(sorted(row)) or '(none)'}")
    return Conversation(messages, read_tools(row))


def read_turns_whole(turns: Any, column: str, roles: Mapping[str, str]) -> list[Turn]:
    """Read a list of turns, each with all its keys; ``roles`` renames speakers that it knows.

    Raises:
        RowError: it is no list of turns, or one of them has no speaker or no text.
    """
    if not isinstance(turns, list) or not turns:
        raise RowError(f"column {column!r} must hold a list of turns, not {_found(turns)}")
    return [read_turn(turn, f"{column}[{i}]", roles) for i, turn in enumerate(turns)]


def read_turn(turn: Any, place: str, roles: Mapping[str, str]) -> Turn:
    """Read a turn written with ``role`` and ``content``, or with ``from`` and ``value``.

    Raises:
        RowError: it has no speaker or no text; ``place`` says which turn.
    """
    if not isinstance(turn, Mapping):
        raise RowError(f"{place} must be an object with 'role' and 'content', not {_found(turn)}")
    sharegpt_keys = "from" in turn and "role" not in turn
    speaker, text = ("from", "value") if sharegpt_keys else ("role", "content")
    role = turn.get(speaker)
    if not isinstance(role, str) or not role.strip():
        raise RowError(f"{place} needs the text {speaker!r}, who speaks; it has {_keys(turn)}")
    others = {key: value for key, value in turn.items() if key not in (speaker, text)}
    _check_calls(turn, place)
    content = turn.get(text)
    if content is None and turn.get("tool_calls"):  # it calls and says nothing
        return {"role": roles.get(role, role), "content": None, **others}
    if text not in turn:
        raise RowError(f"{place} needs the text {text!r}; it has {_keys(turn)}")
    if not isinstance(content, str) and not _is_parts(content):
        raise RowError(f"{place}: {text!r} must hold text, not {_found(content)}")
    return {"role": roles.get(role, role), "content": content, **others}


def read_tools(row: Mapping[str, Any]) -> list[Any] | None:
    """Return the ``tools`` of a row: a list of objects, or that list as JSON text.

    Raises:
        RowError: the column holds anything else.
    """
    value = row.get("tools")
    if isinstance(value, str) and value.strip():
        value = _from_json(value, "column 'tools'")
    if value is None or value in ("", []):
        return None
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
        raise RowError(f"column 'tools' must hold a list of objects, not {_found(value)}")
    return value


def is_blank(turn: Turn) -> bool:
    """Whether a turn neither says anything nor calls a tool."""
    content = turn.get("content")
    return not turn.get("tool_calls") and isinstance(content, str) and not content.strip()


def _check_calls(turn: Mapping[str, Any], place: str) -> None:
    """Make sure that tool calls are objects, and that arguments written as text are JSON."""
    calls = turn.get("tool_calls")
    if calls is None:
        return
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        raise RowError(f"{place}: 'tool_calls' must hold a list of objects, not {_found(calls)}")
    for number, call in enumerate(calls):
        function = call.get("function")
        arguments = function.get("arguments") if isinstance(function, Mapping) else None
        if isinstance(arguments, str):
            _from_json(arguments, f"{place}.tool_calls[{number}]: the text 'arguments'")


def _from_json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise RowError(f"{place} is not JSON: {error}") from None


def _is_parts(content: Any) -> bool:
    """Whether content is a list of parts that all hold text, as Axolotl joins them."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(
            isinstance(part, Mapping)
            and any(isinstance(part.get(key), str) for key in ("text", "content", "value"))
            for part in content
        )
    )


def _keys(turn: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, turn)) or "nothing"


def _found(value: Any) -> str:
    if value in ([], {}):
        return "an empty list" if isinstance(value, list) else "an empty object"
    return kind_of(value)
