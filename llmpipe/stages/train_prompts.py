"""Read the rows of ``rl: grpo``: prompts in plain turns, and columns for its reward functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmpipe.formats import Prompt, RowError
from llmpipe.formats.prompt import read_prompt
from llmpipe.formats.provenance import PROVENANCE
from llmpipe.formats.turn import Turn, TurnRules

TAKEN = frozenset(
    {
        *("prompts", "completions", "completion", "completion_ids", "environments"),
        *("trainer_state", "log_extra", "log_metric"),
    }
)
"""Names of arguments that TRL passes to reward functions."""


def read_rewarded(row: Mapping[str, Any], rules: TurnRules) -> tuple[Prompt, tuple[str, ...]]:
    """Read a prompt and the columns for reward functions.

    Raises:
        RowError: there is no prompt, it has tools or ends with an answer, or a column has the name
            of another argument.
    """
    prompt, left = read_prompt({k: v for k, v in row.items() if k != PROVENANCE}, rules)
    if taken := next((name for name in prompt.fields if name in TAKEN), None):
        raise RowError(
            f"column {taken!r} has the name of an argument that TRL passes to reward functions",
            hint="rename the column",
        )
    plain = [Turn(turn.role, turn.text) for turn in prompt.turns]
    calls = any(turn.tool_calls or turn.tool_call_id for turn in prompt.turns)
    if prompt.tools or calls:
        raise RowError("the prompt has tools or tool calls, which GRPO does not train with here")
    if plain[-1].role == "assistant":
        raise RowError("the prompt ends with an answer", hint="leave the last turn out")
    return Prompt(plain, prompt.fields), left
