"""The ``completion`` format: raw ``text`` to go on training on, without turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmpipe.formats.message import Message, text_column


def matches(row: Mapping[str, Any]) -> bool:
    """Whether the row's columns are those of this format."""
    return isinstance(row.get("text"), str)


def to_chat(row: Mapping[str, Any]) -> list[Message]:
    """Read the text as one lone assistant turn: nobody asked for it."""
    return [{"role": "assistant", "content": text_column(row, "text")}]


def from_chat(messages: list[Message]) -> dict[str, Any]:
    """Write the contents of all turns one after the other, a blank line between; roles go."""
    return {"text": "\n\n".join(message["content"] for message in messages)}
