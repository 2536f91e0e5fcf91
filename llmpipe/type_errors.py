"""Word what is wrong with a value, the same way in specs, in requests and on the command line.

A message names what is expected and shows what was found: ``must be a string, not 3``. The caller
puts the place in front of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

SHOWN = 60
"""Maximum number of characters shown of a value."""

TYPE_WORDS = {
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}
"""The words for each type of JSON Schema."""

Steps = tuple[str | int, ...]
"""The keys and indexes that lead to a value."""


def requirement(expected: Iterable[str]) -> str:
    """Return what a value must be; each alternative in words, such as ``a string``."""
    return f"must be {' or '.join(dict.fromkeys(expected))}"


def mismatch(expected: Iterable[str], value: Any) -> str:
    """Return what a value must be, and what it is."""
    return f"{requirement(expected)}, not {shown(value)}"


def one_of(values: Iterable[Any]) -> str:
    """Return in words that a value is one of several."""
    words = [each if isinstance(each, str) else json.dumps(each) for each in values]
    return words[0] if len(words) == 1 else f"one of {', '.join(words)}"


def non_empty(words: str) -> str:
    """Return the words for a type whose values must not be empty."""
    return f"a non-empty {words.partition(' ')[2]}"


def bounded(
    words: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> str:
    """Return the words for a number with its bounds, such as ``a whole number from 1 to 9``."""
    if ge is not None and le is not None:
        return f"{words} from {_number(ge)} to {_number(le)}"
    bounds = {"at least": ge, "above": gt, "at most": le, "below": lt}
    parts = [f"{word} {_number(bound)}" for word, bound in bounds.items() if bound is not None]
    of = " of" if parts and parts[0].startswith("at ") else ""
    return f"{words}{of} {' and '.join(parts)}" if parts else words


def _number(bound: float) -> str:
    """Return a bound as a person writes it: without ``.0``."""
    return str(int(bound) if bound == int(bound) else bound)


def shown(value: Any) -> str:
    """Return a value as JSON, cut to `SHOWN` characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def dotted(steps: Iterable[str | int]) -> str:
    """Return a place as a person writes it: ``messages[0].role``."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return text.removeprefix(".")


def steps_in(message: str) -> Steps:
    """Read the place at the end of a msgspec message: ``… - at `$.messages[0].role` ``."""
    _, _, path = message.rpartition(" - at `$")
    found = re.findall(r"\.(\w+)|\[([0-9]{1,9})\]", path)
    return tuple(int(number) if number else name for name, number in found)
