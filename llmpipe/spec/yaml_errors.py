"""Explain invalid YAML in plain words, at the place of the mistake.

The parser stops where it cannot continue, often several lines below the mistake: a quote or bracket
that is not closed, or wrong indentation.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

Found = tuple[int, int, int, str, str | None]
"""Line and column from 1, number of characters to underline, message, hint."""

_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""What the parser takes as the end of a line."""

_MOST_INDENTS = 4


def explain(text: str, error: yaml.MarkedYAMLError) -> Found:
    """Return the cause of a parser error."""
    mark = error.problem_mark or error.context_mark
    problem = str(error.problem or error.context or "malformed")
    if mark is None:
        return 1, 1, 1, problem, None
    lines = _LINE_BREAK.split(text)
    line = lines[mark.line] if mark.line < len(lines) else ""
    last = _scalar_before(text, mark)
    return (
        _quote(error, mark, last, lines)
        or _bracket(error, mark)
        or _key(error, lines)
        or _indentation(problem, mark, last, lines)
        or (mark.line + 1, mark.column + 1, 1, problem, _hint(problem, line))
    )


def _quote(error: Any, mark: Any, last: Any, lines: list[str]) -> Found | None:
    """Explain a quote that is not closed, or closed too early."""
    opened = error.context_mark
    if "quoted scalar" in (error.context or "") and opened is not None:
        if "end of stream" in error.problem or "document indicator" in error.problem:
            return *_place(opened), 1, _unclosed(lines, opened), None
        return None
    if last is None or last.style not in ("'", '"') or last.end_mark.line != mark.line:
        return None
    start, end = last.start_mark, last.end_mark
    if start.line < end.line:
        hint = f"so the text continues to line {end.line + 1}, where the next quote ends it"
        return *_place(start), 1, _unclosed(lines, start), hint
    if mark.column - end.column <= 1 and _sign(lines, mark).isalnum():
        escaped = "''" if last.style == "'" else '\\"'
        message = f"the quote of column {start.column + 1} is closed before this"
        return *_place(mark), 1, message, f"a quote inside of it is written {escaped}"
    return None


def _unclosed(lines: list[str], opened: Any) -> str:
    return f"this quote ({_sign(lines, opened)}) is not closed on its line"


def _bracket(error: Any, mark: Any) -> Found | None:
    """Explain a bracket that is not closed, if the next text is on another line."""
    opened = error.context_mark
    if opened is None or not (error.context or "").startswith("while parsing a flow"):
        return None
    if opened.line == mark.line:
        return None
    bracket, closing = ("{", "}") if "mapping" in error.context else ("[", "]")
    message = f"this {bracket} is not closed: {closing} or a comma is missing"
    return *_place(opened), 1, message, f"at the latest before line {mark.line + 1}"


def _key(error: Any, lines: list[str]) -> Found | None:
    """Explain text in the place of a key."""
    opened = error.context_mark
    if error.problem != "could not find expected ':'" or opened is None:
        return None
    if _sign(lines, opened) in ("'", '"'):
        return *_place(opened), 1, _unclosed(lines, opened), None
    return *_place(opened), 1, "a key is needed here: no colon follows these words", None


def _indentation(problem: str, mark: Any, last: Any, lines: list[str]) -> Found | None:
    """Explain a line with unexpected indentation."""
    line = lines[mark.line] if mark.line < len(lines) else ""
    indent = len(line) - len(line.lstrip(" "))
    if "\t" in line[: mark.column + 1]:
        return None
    above = _indents_above(lines, mark.line)
    deeper = (
        problem.startswith("mapping values are not allowed")
        and last is not None
        and not last.style
        and last.start_mark.line < mark.line
        and indent > above[0]
    )
    if deeper:
        message = (
            f"wrong indentation: {_spaces(indent)}, more than the line above, which has a value"
        )
        return mark.line + 1, indent + 1, 1, message, f"the line above has {_spaces(above[0])}"
    if not problem.startswith("did not find expected") or mark.column != indent or not line.strip():
        return None
    if indent in above:
        if not line.lstrip().startswith("- "):
            return None
        message = "a key is needed here, as in the lines above it, not an entry of a list"
        return mark.line + 1, indent + 1, 1, message, "indent it more to let it belong to a key"
    told = ", ".join(map(str, above[:_MOST_INDENTS]))
    message = f"wrong indentation: {_spaces(indent)}, which fits no line above it"
    return mark.line + 1, indent + 1, 1, message, f"lines above it have {told}"


def _indents_above(lines: list[str], number: int) -> list[int]:
    """Return the indentation of the line above, and of each line that encloses it, going up."""
    found: list[int] = []
    for line in reversed(lines[:number]):
        bare = line.lstrip(" ")
        if bare and not bare.startswith("#"):
            indent = len(line) - len(bare)
            if not found or indent < found[-1]:
                found.append(indent)
    return found or [0]


def _scalar_before(text: str, mark: Any) -> Any:
    """Return the last key or value that begins before a place."""
    last = None
    try:
        for token in yaml.scan(text, Loader=yaml.CSafeLoader):
            if token.start_mark.index >= mark.index:
                break
            if isinstance(token, yaml.ScalarToken):
                last = token
    except yaml.YAMLError:
        pass  # the error to explain, or an earlier one
    return last


def _hint(problem: str, line: str) -> str | None:
    if "\t" in line:
        return "indent with spaces, not with tabs"
    if problem == "found character that cannot start any token":
        return "a text that begins with this character needs quotes"
    if problem.startswith("mapping values are not allowed"):
        return "a text with a colon and a space needs quotes"
    return None


def _sign(lines: list[str], mark: Any) -> str:
    """Return the character at a place; "" after the end."""
    return "".join(lines[mark.line : mark.line + 1])[mark.column : mark.column + 1]


def _place(mark: Any) -> tuple[int, int]:
    return mark.line + 1, mark.column + 1


def _spaces(count: int) -> str:
    return f"{count} space{'' if count == 1 else 's'}"
