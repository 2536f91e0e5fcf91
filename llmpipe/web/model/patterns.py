"""Check the pattern of a JSON Schema: its syntax, how often it repeats, and what is enforced."""

from __future__ import annotations

import re
from collections.abc import Iterator

TOKEN = re.compile(
    r"(?P<escaped>\\.)"
    r"|\[(?P<members>\^?(?:\\.|[^\]\\])+)\]"
    r"|(?P<open>\((?:\?(?:[:=!]|<[=!]))?)|(?P<close>\))|(?P<or>\|)"
    r"|(?P<times>(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})\??)"
    r"|(?P<text>[^\[\]{}\\])",
    re.DOTALL,
)
HELD_ESCAPES = frozenset("^$.[]()|{}*+?")
"""Characters that llama.cpp reads literally after a backslash."""
CLASS_ESCAPES = frozenset("[]")
"""The same inside a class."""
ANCHORS = ("^", "$")


class PatternError(ValueError):
    """A pattern that is not well-formed."""


def repetitions(pattern: str) -> int:
    """Return how many repetitions a pattern expands to.

    Nested counts multiply; counts side by side add up.

    Raises:
        PatternError: The pattern is not well-formed.
    """
    groups, last, repeatable = [0], 0, False
    for token in _tokens(pattern):
        if token["times"]:
            if not repeatable:
                raise PatternError(f"nothing stands before {token[0]!r} to be repeated")
            groups[-1] += last * (_most(token["times"]) - 1)
            repeatable = False
        elif token["open"]:
            groups.append(0)
            repeatable = False
        elif token["close"]:
            if len(groups) == 1:
                raise PatternError("a group is closed that was not opened")
            last = max(1, groups.pop())
            groups[-1] += last
            repeatable = True
        else:
            repeatable = not token["or"] and token["text"] not in ANCHORS
            last = int(repeatable)
            groups[-1] += last
            if token["members"]:
                _require_ordered(token["members"])
    if len(groups) > 1:
        raise PatternError("a group is not closed")
    return groups[0]


def unenforced(pattern: str) -> Iterator[str]:
    """Yield the parts of a well-formed pattern that llama.cpp or llguidance would not enforce."""
    if not (pattern.startswith("^") and pattern.endswith("$") and not pattern.endswith(r"\$")):
        yield "must begin with ^ and end with $"
        return
    if "(?" in pattern:
        yield "groups that begin with (? are not enforced"
        return
    if '"' in pattern:
        yield 'a quotation mark (") cannot be part of it'
    depth, before = 0, ""
    for token in _tokens(pattern[1:-1]):
        depth += bool(token["open"]) - bool(token["close"])
        escaped = token["escaped"]
        if escaped and escaped[1] not in HELD_ESCAPES:
            yield _not_held(escaped)
        for inside in re.findall(r"\\.", token["members"] or "", re.DOTALL):
            if inside[1] not in CLASS_ESCAPES:
                yield _not_held(inside)
        if token["text"] in ANCHORS:
            yield f"{token[0]} is enforced only at the beginning and at the end"
        if token["times"] and token["times"].endswith("?") and len(token["times"]) > 1:
            yield f"{token[0]} is not enforced; leave out the last ?"
        if token["or"] and depth == 0:
            yield "alternatives must stand in a group: ^(a|b)$"
        if before == "(" and token["close"]:
            yield "a group is empty"
        before = token[0]


def _tokens(pattern: str) -> Iterator[re.Match[str]]:
    at = 0
    while at < len(pattern):
        token = TOKEN.match(pattern, at)
        if token is None:
            raise PatternError(f"{pattern[at]!r} at character {at + 1} has no counterpart")
        yield token
        at = token.end()


def _most(times: str) -> int:
    """Return the maximum repetitions of a quantifier: the larger of its two numbers."""
    if not times.startswith("{"):
        return 1
    numbers = times.rstrip("?")[1:-1].split(",")
    if any(len(number) > 9 for number in numbers):
        raise PatternError(f"{times} repeats too often")
    low = int(numbers[0])
    high = int(numbers[-1]) if numbers[-1] else low
    if high < low:
        raise PatternError(f"{times} ends before it begins")
    return max(1, high)


def _require_ordered(members: str) -> None:
    """Require that every range of a class is ascending."""
    one = r"(?:\\.|[^\\])"
    for low, high in re.findall(f"({one})-({one})", members.removeprefix("^"), re.DOTALL):
        if low[-1] > high[-1]:
            raise PatternError(f"the range {low}-{high} ends before it begins")


def _not_held(escaped: str) -> str:
    instead = "a class such as [0-9]" if escaped[1].isalnum() else "the character itself"
    return f"{escaped} is not enforced; write {instead}"
