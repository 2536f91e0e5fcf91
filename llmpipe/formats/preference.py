"""A preference (for DPO and reward models): a prompt, a chosen answer and a rejected one.

Public sets write the prompt as text (``prompt``, ``question``, ``instruction`` with ``input``,
``input`` alone), as turns (``messages``, ``conversations``, ``prompt``), or inside ``chosen`` and
``rejected`` as whole conversations. Lists of rated ``completions``, as in UltraFeedback, become the
best against the worst. Not covered: answers of several turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from llmpipe.formats.prompt import (
    PLACES,
    Question,
    agreed,
    as_question,
    lay_out,
    questions,
    read_prompt_turns,
    same,
    write_prompt,
)
from llmpipe.formats.row import (
    RowError,
    UnusableRowError,
    left_behind,
    read_tools,
    text_column,
    turns_column,
)
from llmpipe.formats.turn import RULES, Turn, TurnRules, read_turn, read_turns, write_turn

READS = frozenset({*PLACES, "system", "chosen", "rejected", "tools"})

SCORES = ("overall_score", "score", "rating", "fine-grained_score")
"""Keys of a rated completion that may hold its score; the first that all have is used."""


class Preference(msgspec.Struct, frozen=True):
    """The turns up to the question, and two answers to it, each one assistant's turn."""

    kind: ClassVar[str] = "a pair of answers"
    columns: ClassVar[tuple[str, ...]] = ("prompt", "chosen", "rejected", "tools", "row")
    entry: ClassVar[Mapping[str, Any]] = {"type": "axolotl_pairs.render"}

    turns: list[Turn]
    chosen: Turn
    rejected: Turn
    tools: list[Any] | None = None

    def prompt(self) -> Sequence[Turn]:
        """Return the turns that ask."""
        return [turn for turn in self.turns if turn.role == "user"]

    def said(self) -> Sequence[Turn]:
        """Return the prompt and both answers, for comparing."""
        return [*self.turns, self.chosen, self.rejected]

    def layout(self, place: str) -> dict[str, str | None]:
        """Return the columns that Axolotl gets, all of text; ``row`` is the row's place."""
        chosen, rejected = write_turn(self.chosen), write_turn(self.rejected)
        return lay_out(self.turns, self.tools, place, chosen=chosen, rejected=rejected)

    def write(self) -> dict[str, Any]:
        """Return the row of the format ``preference``."""
        others = {"chosen": [write_turn(self.chosen)], "rejected": [write_turn(self.rejected)]}
        return write_prompt(self.turns, self.tools, others)


def read_preference(
    row: Mapping[str, Any], rules: TurnRules = RULES
) -> tuple[Preference, tuple[str, ...]]:
    """Read a pair of answers; an answer may be blank.

    Raises:
        RowError: an answer or the prompt is missing, or two columns contradict each other.
    """
    before_chosen, chosen = _answer(row, "chosen", rules)
    before_rejected, rejected = _answer(row, "rejected", rules)
    if before_chosen and before_rejected and not same(before_chosen, before_rejected):
        raise RowError(
            "chosen and rejected differ before their last turn",
            hint="the prompt is their common beginning; only the answer at the end may differ",
            reason="contradiction",
        )
    asked: list[Question] = [
        as_question(column, turns)
        for column, turns in (("chosen", before_chosen), ("rejected", before_rejected))
        if turns
    ]
    asked += questions(row, rules, chosen)
    if not asked:
        raise RowError(
            "a preference row needs a question beside chosen and rejected",
            hint="as text in prompt, question, instruction or input; as turns in messages; or "
            "chosen and rejected as whole conversations",
            reason="no prompt",
        )
    turns = agreed(asked, text_column(row, "system", required=False))
    return Preference(turns, chosen, rejected, read_tools(row)), left_behind(row, READS)


def is_rated(row: Mapping[str, Any]) -> bool:
    """Return whether the row has a list of rated completions."""
    found = row.get("completions")
    return isinstance(found, list) and bool(found) and all(isinstance(f, Mapping) for f in found)


def read_rated(
    row: Mapping[str, Any], rules: TurnRules = RULES
) -> tuple[Preference, tuple[str, ...]]:
    """Read rated completions as a pair: the best one against the worst.

    Raises:
        UnusableRowError: all have the same score.
        RowError: a completion has no text or no score.
    """
    turns, read = read_prompt_turns(row, rules)
    completions = row["completions"]
    scored = [(_score(completions, i), _response(each, i)) for i, each in enumerate(completions)]
    best, worst = max(scored, key=lambda s: s[0]), min(scored, key=lambda s: s[0])
    if best[0] == worst[0]:
        raise UnusableRowError("no preference", "all completions have the same score")
    chosen, rejected = (Turn("assistant", text) for _, text in (best, worst))
    left = left_behind(row, READS | read | {"completions"})
    keys = {key for each in completions for key in each} - {"response", _score_key(completions)}
    others = ["completions between the best and the worst"] if len(completions) > 2 else []
    named = [f"completions.{key}" for key in sorted(keys)]
    return Preference(turns, chosen, rejected, read_tools(row)), (*left, *named, *others)


def _answer(row: Mapping[str, Any], column: str, rules: TurnRules) -> tuple[list[Turn], Turn]:
    """Read an answer: the turns that stand before it, and itself as one assistant's turn."""
    if row.get(column) is None:
        raise RowError(
            f"a preference row needs {column}",
            hint="chosen and rejected: text, one turn {role: assistant, content: …}, or a "
            "conversation that ends with it",
            reason="missing column",
        )
    value = turns_column(row, column)
    if isinstance(value, list):
        turns = read_turns(value, column, rules)
    elif isinstance(value, Mapping):
        turns = [read_turn(value, column, rules)]
    else:
        turns = [Turn("assistant", text_column(row, column, blank=True))]
    if turns[-1].role != "assistant":
        raise RowError(f"{column} must end with the assistant's turn, not the {turns[-1].role}'s")
    return turns[:-1], turns[-1]


def _score_key(completions: Sequence[Mapping[str, Any]]) -> str | None:
    return next((key for key in SCORES if all(key in each for each in completions)), None)


def _score(completions: Sequence[Mapping[str, Any]], number: int) -> float:
    key = _score_key(completions)
    if key is None:
        raise RowError(
            f"completions need a score under one key: {', '.join(SCORES)}", reason="no score"
        )
    try:
        return float(completions[number][key])
    except (TypeError, ValueError):
        found = completions[number][key]
        raise RowError(
            f"completions[{number}].{key} must be a number, not {found!r}", reason="no score"
        ) from None


def _response(completion: Any, number: int) -> str:
    text = completion.get("response") if isinstance(completion, Mapping) else None
    if not isinstance(text, str):
        raise RowError(f"completions[{number}] needs the text 'response'")
    return text
