"""Which columns hold what, for rows in none of the known formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llmpipe.formats.row import json_text, missing_column, text_column

_CANONICAL = {"user": "instruction", "assistant": "output"}
"""The columns of known formats that parts of a map stand for; the others have their own name."""

_SHAPES: tuple[tuple[frozenset[str], frozenset[str]], ...] = tuple(
    (frozenset(needed), frozenset(allowed))
    for needed, allowed in (
        (("text",), ()),
        (("messages",), ("system", "tools")),
        (("user", "assistant"), ("system", "input", "history", "tools", "reasoning")),
        (("chosen", "rejected"), ("prompt", "system", "tools")),
        (("prompt", "completion", "label"), ("system", "tools")),
        (("prompt",), ("system", "tools", "keep")),
    )
)
"""Parts that make an example together, and those that may stand beside them."""

OF_TURNS = ("role", "content")
"""Parts that name keys of turns, not columns."""

OPTIONAL = ("system", "input", "history", "tools", "reasoning")
"""Parts that a row may leave out."""


class ColumnMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which column holds what. Name `user` and `assistant`, or `messages`, or `text`, or `chosen`
    and `rejected`, or `prompt`, `completion` and `label`, or `prompt` alone.
    """

    user: str | None = None
    """Column with the question."""
    assistant: str | None = None
    """Column with the answer."""
    system: str | None = None
    """Column with the system message; rows where it is empty get none."""
    input: str | None = None
    """Column with text that belongs below the question: a passage, a record."""
    history: str | None = None
    """Column with earlier turns, a list of pairs `[question, answer]`."""
    reasoning: str | None = None
    """Column with the reasoning before the answer; it becomes `reasoning_content`."""
    messages: str | None = None
    """Column with turns: `role` and `content`, or `from` and `value`."""
    role: str | None = None
    """Key of a turn with its speaker, if it is neither `role` nor `from`."""
    content: str | None = None
    """Key of a turn with its text, if it is neither `content` nor `value`."""
    tools: str | None = None
    """Column with the tools on offer, a list of objects or its JSON text."""
    text: str | None = None
    """Column with raw text for continued training; excludes all others."""
    prompt: str | None = None
    """Column with the prompt of a preference, of a labeled answer, or of a prompt alone."""
    chosen: str | None = None
    """Column with the preferred answer."""
    rejected: str | None = None
    """Column with the other answer."""
    completion: str | None = None
    """Column with a labeled answer."""
    label: str | None = None
    """Column that says whether `completion` is good."""
    keep: tuple[str, ...] = ()
    """Columns that a reward function needs, beside `prompt` alone."""

    def named(self) -> dict[str, str]:
        """Return the parts that are named, each with its column."""
        fields = msgspec.structs.asdict(self)
        return {
            name: value
            for name, value in fields.items()
            if isinstance(value, str) and name not in OF_TURNS
        }

    def problem(self) -> str | None:
        """Return what is wrong with the combination of columns, or None."""
        named = {*self.named(), *(("keep",) if self.keep else ())}
        if (self.role or self.content) and not self.messages:
            return "`role` and `content` are keys of the turns in `messages`"
        if "text" in named and len(named) > 1:
            other = sorted(named - {"text"})[0]
            return f"`text` is raw text and cannot stand beside `{other}`"
        fits = [needed | allowed for needed, allowed in _SHAPES if needed <= named]
        if not fits:
            return (
                "name both the `user` and the `assistant` column, or `messages`, `text`, "
                "`chosen` and `rejected`, or `prompt`"
            )
        extra = min((named - parts for parts in fits), key=len)
        if extra:
            return f"`{sorted(extra)[0]}` has no place beside the other columns"
        return None

    def canonical(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parts of a row under the columns of a known format.

        Raises:
            RowError: a column is missing, or one that must hold text does not.
        """
        found: dict[str, Any] = {}
        for part, column in self.named().items():
            if column not in row and part not in OPTIONAL:
                raise missing_column(row, column)
            value = row.get(column)
            if part in ("user", "assistant", "system", "input", "text", "reasoning"):
                value = text_column(row, column, required=part not in OPTIONAL, blank=True)
            found[_CANONICAL.get(part, part)] = value
        if self.role or self.content:
            found["messages"] = self._renamed(found["messages"])
        for column in self.keep:
            if column not in row:
                raise missing_column(row, column)
            found[column] = row[column]
        return found

    def _renamed(self, turns: Any) -> Any:
        """Return turns with `role` and `content` under these names; others are for the reader."""
        if isinstance(turns, str) and turns.lstrip()[:1] == "[":
            turns = json_text(turns, f"column {self.messages!r}")
        if not isinstance(turns, list):
            return turns
        names = {self.role: "role", self.content: "content"}
        return [
            {names.get(key, key): value for key, value in turn.items()}
            if isinstance(turn, Mapping)
            else turn
            for turn in turns
        ]
