"""The shapes that a row of training data comes in, each told by its columns.

    messages     {"messages": [{"role": "user", "content": …}, …]}
    sharegpt     {"conversations": [{"from": "human", "value": …}, …]}
    alpaca       {"instruction": …, "input": …, "output": …}   (and, if wanted, "system")
    completion   {"text": …}

`to_chat` reads any of them as a list of messages and `from_chat` writes one from such a list. A
format is one module with `matches`, `to_chat` and `from_chat`: pure functions from row to row.
Conversations with all that training reads of them are in `llmpipe.formats.conversation`, preference
pairs in `llmpipe.formats.preference`. Reading and writing files is in `llmpipe.formats.records`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, Literal, cast

from llmpipe.formats import alpaca, chat, completion, sharegpt
from llmpipe.formats.message import Message, RowError

FormatName = Literal["messages", "sharegpt", "alpaca", "completion"]

FORMATS: dict[FormatName, ModuleType] = {
    "messages": chat,
    "sharegpt": sharegpt,
    "alpaca": alpaca,
    "completion": completion,
}

__all__ = ["FORMATS", "FormatName", "Message", "RowError", "detect", "from_chat", "to_chat"]


def detect(row: Mapping[str, Any]) -> FormatName | None:
    """Name the format that a row's columns say it is in, or None when they fit none."""
    return next((name for name, module in FORMATS.items() if module.matches(row)), None)


def to_chat(row: Mapping[str, Any], name: FormatName) -> list[Message]:
    """Read a row as messages, in order. Raw text becomes one lone assistant turn.

    Raises:
        RowError: a column is missing, empty or of the wrong type, or a role is unknown.
    """
    return cast("list[Message]", FORMATS[name].to_chat(row))


def from_chat(messages: list[Message], name: FormatName) -> dict[str, Any]:
    """Write messages as a row of the named format.

    Raises:
        RowError: the format cannot hold this conversation (several turns in an Alpaca row, say).
    """
    return cast("dict[str, Any]", FORMATS[name].from_chat(messages))
