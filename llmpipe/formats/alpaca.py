"""The ``alpaca`` format: one question and its answer as instruction, input and output.

The question is the instruction, then the input after a blank line if there is any. A ``system``
column, which many sets add, is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmpipe.formats.chat import require_turns
from llmpipe.formats.message import Message, RowError, text_column


def matches(row: Mapping[str, Any]) -> bool:
    """Whether the row's columns are those of this format."""
    return "instruction" in row and "output" in row


def to_chat(row: Mapping[str, Any], *, blank: bool = False) -> list[Message]:
    """Read instruction and input as the user's turn, the output as the assistant's.

    ``blank`` lets question and answer hold nothing but white space.
    """
    system = text_column(row, "system", required=False)
    answer = text_column(row, "output", blank=blank)
    turns: list[Message] = [
        {"role": "user", "content": question(row, blank=blank)},
        {"role": "assistant", "content": answer},
    ]
    return [{"role": "system", "content": system}, *turns] if system.strip() else turns


def question(row: Mapping[str, Any], *, blank: bool = False) -> str:
    """Return the instruction, and the input below it if there is any."""
    asked = text_column(row, "instruction", blank=blank)
    given = text_column(row, "input", required=False)
    return f"{asked}\n\n{given}" if given.strip() else asked


def from_chat(messages: list[Message]) -> dict[str, Any]:
    """Write one question and its answer; the input stays empty."""
    require_turns(messages, "alpaca")
    roles = [message["role"] for message in messages]
    turns = messages[1:] if roles[0] == "system" else messages
    if roles[-2:] != ["user", "assistant"] or len(turns) != 2:
        raise RowError(
            f"an alpaca row holds one question and one answer, not {len(turns)} turns",
            hint="use `to: messages` for conversations",
        )
    row = {"instruction": turns[0]["content"], "input": "", "output": turns[1]["content"]}
    return {**row, "system": messages[0]["content"]} if roles[0] == "system" else row
