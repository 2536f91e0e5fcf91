"""The requests of Evol-Instruct: six ways to rewrite a prompt, and how to judge one.

Every request shows two worked examples as earlier turns of the conversation. A large teacher does
not need them; a small one copies the form of its task from them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from llmpipe.stages.generate.replies import Messages

REWRITE_SCHEMA = {
    "type": "object",
    "properties": {"instruction": {"type": "string"}},
    "required": ["instruction"],
    "additionalProperties": False,
}
"""The form of a rewritten prompt."""

JUDGE_SCHEMA = {
    "type": "object",
    "properties": {"equal": {"type": "boolean"}},
    "required": ["equal"],
    "additionalProperties": False,
}
"""The form of a judgment: whether two prompts ask for the same thing."""

LEAKS = (
    "given prompt",
    "rewritten prompt",
    "#rewritten prompt#",
    "created prompt",
    "more words than the prompt",
)
"""Phrases of our prompts and of the published ones that a rewritten prompt must not repeat."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One way to make a new prompt from an old one: the task, and two examples of it."""

    task: str
    examples: tuple[tuple[str, str], tuple[str, str]]


_HARDER = (
    "Rewrite the prompt so that it is harder, but still clear and possible to answer. {how} "
    "Use at most 20 more words than the prompt. Do not answer it."
)

_PLANTS = "How do plants make food?"
_CAFE = "Suggest a name for a cafe."

OPERATORS: dict[str, Operator] = {
    "add_constraints": Operator(
        _HARDER.format(how="Add one more condition that the answer must meet."),
        (
            (_PLANTS, "How do plants make food? Answer in two sentences that a child can follow."),
            (_CAFE, "Suggest a name for a cafe that is short and has to do with the sea."),
        ),
    ),
    "deepen": Operator(
        _HARDER.format(how="Ask for more depth and more breadth on the same matter."),
        (
            (
                _PLANTS,
                "How do plants make food, and what limits how much they make on a cloudy day?",
            ),
            (_CAFE, "Suggest a name for a cafe, and explain how it could shape the decoration."),
        ),
    ),
    "concretize": Operator(
        _HARDER.format(how="Put a specific case in the place of what is general."),
        (
            (_PLANTS, "How does a tomato plant in a dim greenhouse make food?"),
            (_CAFE, "Suggest a name for a cafe in the old railway station of a mountain village."),
        ),
    ),
    "increase_reasoning": Operator(
        _HARDER.format(how="Ask for several steps of reasoning."),
        (
            (
                _PLANTS,
                "How do plants make food? Name each step and say why the next one depends on it.",
            ),
            (_CAFE, "Compare three names for a cafe step by step, and then choose the best one."),
        ),
    ),
    "complicate_input": Operator(
        _HARDER.format(how="Add some data, such as a list, figures or code, to work with."),
        (
            (
                _PLANTS,
                "A plant makes 2 g of sugar an hour by day and uses 1 g by night. Add it up.",
            ),
            (_CAFE, "Suggest a name for a cafe with this menu: soup 4, bread 2, apple cake 3."),
        ),
    ),
    "breadth": Operator(
        "Write a new prompt on the same topic and of the same length, but about something rarer. "
        "It must be clear and possible to answer. Do not answer it.",
        (
            (_PLANTS, "How do plants that live without light get their food?"),
            (_CAFE, "Suggest a name for a tea house in the desert."),
        ),
    ),
}
"""The published operators: five in depth, and the last one in breadth."""

_JUDGE = (
    "Do these two prompts ask for the same thing, with the same conditions, depth and breadth?\n"
    "First: {first}\nSecond: {second}"
)

_JUDGED = (
    (_PLANTS, "Tell me how plants make food.", True),
    (_CAFE, "Suggest a name for a cafe that is short and has to do with the sea.", False),
)


def rewrite_messages(operator: str, instruction: str) -> Messages:
    """Ask for ``instruction`` to be rewritten by one of `OPERATORS`."""
    chosen = OPERATORS[operator]
    turns = [(_rewrite(chosen, old), {"instruction": new}) for old, new in chosen.examples]
    return _with_examples(turns, _rewrite(chosen, instruction))


def judge_messages(first: str, second: str) -> Messages:
    """Ask whether the second prompt asks for the same thing as the first."""
    turns = [(_JUDGE.format(first=a, second=b), {"equal": same}) for a, b, same in _JUDGED]
    return _with_examples(turns, _JUDGE.format(first=first, second=second))


def _rewrite(operator: Operator, instruction: str) -> str:
    return f"{operator.task}\nPrompt: {instruction}"


def _with_examples(turns: Iterable[tuple[str, object]], question: str) -> Messages:
    messages: Messages = []
    for asked, reply in turns:
        messages.append({"role": "user", "content": asked})
        messages.append({"role": "assistant", "content": json.dumps(reply)})
    return [*messages, {"role": "user", "content": question}]
