"""When Self-Instruct rejects a task or an instance: the published tests that need no request."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmpipe.stages.generate.text import read_field

BLOCKED_WORDS = (
    "image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps",
    "draw", "plot", "go to",
)  # fmt: skip
"""Words of tasks that text alone cannot do."""
SHORTEST, LONGEST = 4, 150
"""Words that a task has, at least and at most."""

_NUMBER = re.compile(r"^\d+ ?[.)] (?=\D)")


@dataclass(frozen=True, slots=True)
class Instance:
    """One input of a task with its output."""

    input: str
    output: str


def reject_task(task: str, blocked: Iterable[str] = BLOCKED_WORDS) -> str | None:
    """Return why a task cannot be used, or None."""
    words = len(task.split())
    reason = None
    if words < SHORTEST:
        reason = f"fewer than {SHORTEST} words"
    elif words > LONGEST:
        reason = f"more than {LONGEST} words"
    elif any(re.search(rf"\b{re.escape(word)}\b", task, re.IGNORECASE) for word in blocked):
        reason = "blocked word"
    elif task.lower().startswith("write a program"):
        reason = "asks for a program"
    elif task[0] in string.punctuation:
        reason = "starts with punctuation"
    elif not task[0].isascii():
        reason = "starts with a non-ASCII character"
    return reason


def reject_instance(instance: Instance, others: Sequence[Instance]) -> str | None:
    """Return why an instance cannot be used, or None; ``others`` are all of the same task."""
    reason = None
    if not instance.output:
        reason = "no output"
    elif instance.input == instance.output:
        reason = "output repeats the input"
    elif instance.input.endswith(":") or instance.output.endswith(":"):
        reason = "ends with a colon"
    elif instance.input and any(
        other.input == instance.input and other.output != instance.output for other in others
    ):
        reason = "one input with several outputs"
    return reason


def read_tasks(text: str) -> list[str] | None:
    """Return the tasks of a reply, each on one line; None if it is not the JSON asked for.

    The number that a teacher writes before a task is not part of it.
    """
    tasks = read_field(text, "tasks", list)
    if tasks is None:
        return None
    lines = (" ".join(task.split()) for task in tasks if isinstance(task, str))
    return [_NUMBER.sub("", line) for line in lines]


def read_instances(text: str) -> list[Instance]:
    """Return the complete instances of a reply; the one in which a reply is cut off is not."""
    decoder = json.JSONDecoder()
    found: list[Instance] = []
    position = text.find("[")
    while position >= 0 and (start := text.find("{", position)) >= 0:
        try:
            value, position = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            break
        fields = (value.get("input"), value.get("output"))
        if all(isinstance(field, str) for field in fields):
            found.append(Instance(*(field.strip() for field in fields)))
    return found
