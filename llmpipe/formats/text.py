"""Raw text for continued training: the column ``text``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from llmpipe.formats.conversation import Conversation, require_text
from llmpipe.formats.row import left_behind, text_column
from llmpipe.formats.turn import Turn, keys_beside_text

READS = frozenset({"text"})


class Text(msgspec.Struct, frozen=True):
    """Raw text."""

    kind: ClassVar[str] = "raw text"
    columns: ClassVar[tuple[str, ...]] = ("text",)
    entry: ClassVar[Mapping[str, Any]] = {"type": "completion", "field": "text"}

    text: str

    def prompt(self) -> Sequence[Turn]:
        """Return the text: raw text as a whole is what must not appear twice."""
        return self.said()

    def said(self) -> Sequence[Turn]:
        """Return the text as one turn, for comparing."""
        return [Turn("assistant", self.text)]

    def layout(self, place: str) -> dict[str, str | None]:
        """Return the columns that Axolotl gets."""
        return {"text": self.text}

    def write(self) -> dict[str, Any]:
        """Return the row of the format ``completion``."""
        return {"text": self.text}


def read_text(row: Mapping[str, Any]) -> tuple[Text, tuple[str, ...]]:
    """Read raw text; it may be blank.

    Raises:
        RowError: the column is missing or holds no text.
    """
    return Text(text_column(row, "text", blank=True)), left_behind(row, READS)


def text_of(conversation: Conversation) -> tuple[Text, list[str]]:
    """Return the contents of all turns, a blank line between, and the keys that are lost.

    Raises:
        RowError: a turn calls a tool.
    """
    require_text(conversation, "completion")
    text = "\n\n".join(turn.text for turn in conversation.turns)
    return Text(text), keys_beside_text(conversation.turns)
