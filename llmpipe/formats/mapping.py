"""Read a row as a chat: by the columns that its author names, or by its own format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llmpipe.errors import did_you_mean
from llmpipe.formats import detect, to_chat
from llmpipe.formats.message import Message, RowError, UnusableRowError, text_column

_KNOWN_COLUMNS = ("messages", "conversations", "instruction", "output", "text")


class ColumnMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which column holds what, for rows in none of the known formats."""

    user: str | None = None
    """Column with the question."""
    assistant: str | None = None
    """Column with the answer."""
    system: str | None = None
    """Column with the system message; rows where it is empty get none."""
    text: str | None = None
    """Column with raw text to go on training on; excludes the other three."""

    def problem(self) -> str | None:
        """Say what is wrong with the combination of columns, or None."""
        turns = [name for name in ("user", "assistant", "system") if getattr(self, name)]
        if self.text and turns:
            return f"`text` is raw text and cannot stand beside `{turns[0]}`"
        if not self.text and not (self.user and self.assistant):
            return "name both the `user` and the `assistant` column, or `text` for raw text"
        return None


def read_chat(row: Mapping[str, Any], columns: ColumnMap | None = None) -> list[Message]:
    """Read a row as messages: by ``columns`` where given, else in the format its columns show.

    Raises:
        UnusableRowError: a turn that must say something is blank, or nobody answers at the end.
        RowError: a column is missing or holds the wrong type, or the format is not known.
    """
    chat = _mapped_chat(row, columns) if columns else _known_chat(row)
    for message in chat:
        if message["role"] in ("user", "assistant") and not message["content"].strip():
            raise UnusableRowError("empty", f"the {message['role']}'s turn is empty")
    if chat[-1]["role"] != "assistant":
        raise UnusableRowError("no answer", f"the last turn is the {chat[-1]['role']}'s")
    return chat


def _known_chat(row: Mapping[str, Any]) -> list[Message]:
    name = detect(row)
    if name is None:
        has = ", ".join(map(repr, row)) or "no columns"
        close = next(filter(None, (did_you_mean(column, _KNOWN_COLUMNS) for column in row)), None)
        raise RowError(
            f"the row is in no known format; it has {has}",
            hint=(f"{close}\n" if close else "")
            + "the formats are told by 'messages', 'conversations', 'instruction' with 'output', "
            + "or 'text';\nother columns are named under `map: {user: …, assistant: …}`",
        )
    return to_chat(row, name)


def _mapped_chat(row: Mapping[str, Any], columns: ColumnMap) -> list[Message]:
    if columns.text:
        return to_chat({"text": text_column(row, columns.text)}, "completion")
    # `ColumnMap.problem` has seen to it that both are named.
    user, assistant = columns.user or "", columns.assistant or ""
    chat: list[Message] = [
        {"role": "user", "content": text_column(row, user)},
        {"role": "assistant", "content": text_column(row, assistant)},
    ]
    system = text_column(row, columns.system, required=False) if columns.system else ""
    return [{"role": "system", "content": system}, *chat] if system.strip() else chat
