"""The requests of Self-Instruct: more tasks, classification or not, and instances of a task.

The published prompts are texts that a base model continues. Here each is a conversation whose
earlier turns are worked examples and whose last turn asks for more, because the teachers are chat
models; the replies are JSON, constrained by a schema. The order of a schema's fields matters: a
teacher writes them in that order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from llmpipe.stages.generate.replies import Messages

NEW_TASKS = 8
"""Maximum number of tasks in one reply, as in the published prompt."""


def _object(**fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


_TEXT = {"type": "string"}

TASKS_SCHEMA = _object(
    tasks={"type": "array", "items": _TEXT, "minItems": 1, "maxItems": NEW_TASKS}
)
CLASSIFICATION_SCHEMA = _object(classification={"type": "boolean"})


def instances_schema(*, classification: bool, most: int) -> dict[str, Any]:
    """Return the form of the instances: output first for classification, else input first."""
    order = ("output", "input") if classification else ("input", "output")
    item = _object(**dict.fromkeys(order, _TEXT))
    return _object(instances={"type": "array", "items": item, "minItems": 1, "maxItems": most})


_WRITE = (
    "Write {count} tasks for a language model, on different topics. Each task is one instruction "
    "that can be done with text alone."
)
_WRITE_MORE = (
    "Write {count} more. None may repeat a task from above, and they should differ in topic, form "
    "and length."
)


def task_messages(shown: Sequence[str]) -> Messages:
    """Ask for new tasks like the ones shown."""
    return [
        _user(_WRITE.format(count=len(shown))),
        _assistant({"tasks": list(shown)}),
        _user(_WRITE_MORE.format(count=NEW_TASKS)),
    ]


_CLASSIFY = "Does this task have a short list of possible answers to choose from?\nTask: {task}"

_CLASSIFIED = (
    ("Say whether the customer's message is a complaint, a question or a compliment.", True),
    ("Write a short letter that invites a friend to a picnic.", False),
    ("Is the number even? Answer yes or no.", True),
    ("Translate the sentence into French.", False),
    ("Which of the two sentences is in the passive voice?", True),
    ("List four ways to save water at home.", False),
)


def classification_messages(task: str) -> Messages:
    """Ask whether a task is a classification."""
    turns = (
        (_CLASSIFY.format(task=shown), {"classification": answer}) for shown, answer in _CLASSIFIED
    )
    return _with_examples(turns, _CLASSIFY.format(task=task))


_INPUT_FIRST = (
    "Write up to {most} examples of this task: for each, first an input for the task, then the "
    "right output. Leave the input empty if the task needs none.\nTask: {task}"
)

_INSTANCES: tuple[tuple[str, list[dict[str, str]]], ...] = (
    (
        "Convert the temperature from Celsius to Fahrenheit.",
        [{"input": "25 °C", "output": "77 °F"}, {"input": "-40 °C", "output": "-40 °F"}],
    ),
    (
        "List four ways to save water at home.",
        [
            {
                "input": "",
                "output": "Repair dripping taps, take shorter showers, collect rain for the "
                "plants, and run the washing machine only when it is full.",
            }
        ],
    ),
    (
        "Turn the notes into one polite sentence.",
        [
            {
                "input": "meeting moved, Thursday 10:00, room 4",
                "output": "Please note that the meeting has been moved to Thursday at 10:00 in "
                "room 4.",
            }
        ],
    ),
)

_OUTPUT_FIRST = (
    "Write up to {most} examples of this classification task: for each, first one of the possible "
    "answers as the output, then an input that has this answer. Use different answers.\n"
    "Task: {task}"
)

_LABELED: tuple[tuple[str, list[dict[str, str]]], ...] = (
    (
        "Say whether the customer's message is a complaint, a question or a compliment.",
        [
            {"output": "complaint", "input": "My parcel arrived with a broken lid."},
            {"output": "question", "input": "Do you deliver to the islands?"},
            {"output": "compliment", "input": "The new coat fits perfectly, thank you!"},
        ],
    ),
    (
        "Is the number even? Answer yes or no.",
        [{"output": "yes", "input": "418"}, {"output": "no", "input": "77"}],
    ),
)


def instance_messages(task: str, *, classification: bool, most: int) -> Messages:
    """Ask for inputs and outputs of a task."""
    ask, shown = (_OUTPUT_FIRST, _LABELED) if classification else (_INPUT_FIRST, _INSTANCES)
    turns = (
        (ask.format(task=example, most=most), {"instances": instances[:most]})
        for example, instances in shown
    )
    return _with_examples(turns, ask.format(task=task, most=most))


def _with_examples(turns: Iterable[tuple[str, object]], question: str) -> Messages:
    messages: Messages = []
    for asked, reply in turns:
        messages += [_user(asked), _assistant(reply)]
    return [*messages, _user(question)]


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _assistant(reply: object) -> dict[str, str]:
    return {"role": "assistant", "content": json.dumps(reply, ensure_ascii=False)}
