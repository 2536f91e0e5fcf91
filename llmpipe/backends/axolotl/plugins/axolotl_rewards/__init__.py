"""Reward functions of ``rl: grpo``: call them as TRL does, and check what they return.

TRL hands a reward function the columns of the data set. Arrow gives a column one type, so numbers,
dates and objects could reach the function changed. llmpipe therefore writes a row's own columns as
one JSON text, `FIELDS`, which is read here.

`plugin` wraps the functions of a training. ``python -m axolotl_rewards`` tries them on a few rows
before a training starts. The folder is copied beside each configuration that llmpipe compiles and
needs nothing of llmpipe.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

FIELDS = "fields"
"""The column with a row's own columns, as JSON text."""

ROW = "row"
"""The column that says where a row stands."""


class RewardError(ValueError):
    """A reward function returned something that is not a list of rewards."""


def load(name: str) -> Callable[..., Any]:
    """Return a function by its name, ``module.function``."""
    module, _, function = name.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def column_names(texts: Iterable[str]) -> list[str]:
    """Return the names of the columns that any row of a data set has, from its `FIELDS`."""
    return list(dict.fromkeys(name for text in texts for name in json.loads(text)))


def checked(function: Callable[..., Any], columns: Sequence[str]) -> Callable[..., Any]:
    """Return a function that calls ``function`` with a row's own columns and checks its rewards.

    Args:
        function: The reward function.
        columns: The names of all columns; a batch may have no row with one of them.
    """
    name = getattr(function, "__name__", type(function).__name__)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(**given: Any) -> list[float | None]:
            rewards = await function(**expanded(given, columns))
            return verified(rewards, len(given["completions"]), name)

        return awaited

    @functools.wraps(function)
    def called(**given: Any) -> list[float | None]:
        return verified(function(**expanded(given, columns)), len(given["completions"]), name)

    return called


def expanded(given: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Return the arguments with `FIELDS` as one list per column; a row that lacks it has None."""
    others = {name: value for name, value in given.items() if name not in (FIELDS, ROW)}
    rows = [json.loads(text) for text in given.get(FIELDS) or ()]
    return {**{name: [row.get(name) for row in rows] for name in columns}, **others}


def verified(rewards: Any, count: int, name: str) -> list[float | None]:
    """Return rewards as numbers.

    Raises:
        RewardError: they are not one finite number, or None, for each completion.
    """
    shape = f"{name} must return a list of {count} numbers, one for each completion"
    if isinstance(rewards, str | bytes | Mapping) or not hasattr(rewards, "__iter__"):
        raise RewardError(f"{shape}, not {_shown(rewards)}")
    values = list(rewards)
    if len(values) != count:
        raise RewardError(f"{shape}, not {len(values)}")
    return [_number(value, shape) for value in values]


def _number(value: Any, shape: str) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, str):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise RewardError(f"{shape}; one is {_shown(value)}") from None
    if math.isinf(number):
        raise RewardError(f"{shape}; one is {number}, from which nothing can be learned")
    return number


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '…'}"


def trial_arguments(rows: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of a reward function for each row with each answer, as TRL passes them.

    Args:
        rows: Rows of the data set: ``prompt`` and `FIELDS` as JSON texts.
        answers: Texts that the model could have written.
    """
    from types import SimpleNamespace

    pairs = [(row, answer) for row in rows for answer in answers]
    return {
        "prompts": [json.loads(row["prompt"]) for row, _ in pairs],
        "completions": [[{"role": "assistant", "content": answer}] for _, answer in pairs],
        "completion_ids": [[0] for _ in pairs],
        FIELDS: [row[FIELDS] for row, _ in pairs],
        "trainer_state": SimpleNamespace(global_step=0, max_steps=1, epoch=0.0),
        "log_extra": lambda *_: None,
        "log_metric": lambda *_: None,
    }
