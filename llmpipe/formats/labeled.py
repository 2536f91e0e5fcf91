"""A labeled answer (for KTO): a prompt, a completion, and whether the completion is good.

The completion is a column of its own, or the last turn of the conversation that ``messages``,
``conversations`` or ``prompt`` holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from llmpipe.formats.conversation import read_answer
from llmpipe.formats.prompt import CONVERSATIONS, lay_out, read_prompt_turns, write_prompt
from llmpipe.formats.row import RowError, left_behind, missing_column, read_tools, turns_column
from llmpipe.formats.turn import RULES, Turn, TurnRules, read_turns, write_turn

READS = frozenset({"completion", "label", "system", "tools"})

_LABELS: Mapping[str, bool] = {"true": True, "1": True, "false": False, "0": False}


class Labeled(msgspec.Struct, frozen=True):
    """The turns up to the question, one answer to it, and whether it is a good one."""

    kind: ClassVar[str] = "a labeled answer"
    columns: ClassVar[tuple[str, ...]] = ("prompt", "completion", "label", "tools", "row")
    entry: ClassVar[Mapping[str, Any]] = {"type": "axolotl_pairs.labeled"}

    turns: list[Turn]
    completion: Turn
    label: bool
    tools: list[Any] | None = None

    def prompt(self) -> Sequence[Turn]:
        """Return the turns that ask."""
        return [turn for turn in self.turns if turn.role == "user"]

    def said(self) -> Sequence[Turn]:
        """Return all turns and the label, for comparing."""
        return [*self.turns, self.completion, Turn("label", str(self.label))]

    def layout(self, place: str) -> dict[str, str | None]:
        """Return the columns that Axolotl gets, all of text; ``row`` is the row's place."""
        answer = write_turn(self.completion)
        return lay_out(self.turns, self.tools, place, completion=answer, label=self.label)

    def write(self) -> dict[str, Any]:
        """Return the row of the format ``labeled``."""
        others = {"completion": [write_turn(self.completion)], "label": self.label}
        return write_prompt(self.turns, self.tools, others)


def read_labeled(
    row: Mapping[str, Any], rules: TurnRules = RULES
) -> tuple[Labeled, tuple[str, ...]]:
    """Read a labeled answer; it may be blank.

    Raises:
        RowError: a column is missing, has an invalid value, or contradicts another.
    """
    completion = _completion(row, rules)
    turns, read = read_prompt_turns(row, rules, completion)
    example = Labeled(turns, completion, _read_label(row), read_tools(row))
    return example, left_behind(row, READS | read)


def _completion(row: Mapping[str, Any], rules: TurnRules) -> Turn:
    """Return the completion, or the answer with which a conversation ends."""
    if row.get("completion") is None:
        for column in CONVERSATIONS:
            value = turns_column(row, column)
            if isinstance(value, list) and value:
                last = read_turns(value, column, rules)[-1]
                if last.role == "assistant":
                    return last
    return read_answer(row, "completion", rules)


def _read_label(row: Mapping[str, Any]) -> bool:
    if "label" not in row:
        raise missing_column(row, "label")
    value = row["label"]
    label = value if isinstance(value, bool) else _LABELS.get(str(value).strip().lower())
    if label is None:
        raise RowError(
            f"column 'label' must be true or false, 1 or 0, not {value!r}",
            hint="write true for a good answer and false for a bad one",
        )
    return label
