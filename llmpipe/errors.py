"""The errors that llmpipe raises on purpose, and the exit code of each.

    LlmpipeError                    2   base class: message, location, hint
    ├── UsageError                  2   the command line is wrong
    ├── SpecError                   2   the spec is wrong; holds every Problem, sorted by place
    ├── MissingDependencyError      2   a required package or tool is not installed
    ├── PluginError                 2   an installed package offers a stage kind that cannot be used
    ├── StoreError                  1   the store cannot be read or written
    ├── HubError                    1   the hub cannot be reached, or refuses what is published
    ├── RunError                    1   a stage of a run failed; carries the run (Python API only)
    └── StageError                  1   a stage failed, and its user can do something about it
        └── ModelServerError        1   a model's server failed; its message may quote the request

Ctrl-C exits with 130. Any other exception is a bug in llmpipe and shows its traceback.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

EXCERPT = 100
"""The number of characters of a line that a message shows."""
_NO_TEXT = re.compile("[\ud800-\udfff]")
"""Surrogates: Python decodes bytes that are not UTF-8 into these."""
AROUND = 40
"""The number of characters that a message shows on each side of invalid text."""
LONGEST_LINE = 2000
"""The number of characters that are shown of a message, or of a line of a hint."""
MOST_PROBLEMS = 100
"""The number of problems of a file that are shown; the others are only counted."""
LONGEST_WORD = 1000
"""The number of characters up to which a word is compared with known words."""


class Location(NamedTuple):
    """A place in a text file. Lines and columns count from 1; ``length`` is what to underline.

    Line 0 means the file as a whole. This is a tuple because a spec has several for each value.
    """

    file: str
    line: int
    column: int
    text: str = ""
    length: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def excerpt(self) -> tuple[str, str]:
        """Return the line and its underline; of a long line, only the part around the place."""
        start = max(0, self.column - 1 - EXCERPT // 2) if len(self.text) > EXCERPT else 0
        text = self.text[start : start + EXCERPT].rstrip()
        before, after = "…" * (start > 0), "…" * (start + EXCERPT < len(self.text.rstrip()))
        at = self.column - 1 - start
        length = max(1, min(self.length, len(text) - at))
        return f"{before}{text}{after}", " " * (len(before) + at) + "^" * length


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a spec: what is wrong, where, and what to do about it."""

    message: str
    location: Location | None = None
    hint: str | None = None

    def as_json(self) -> dict[str, str | int | None]:
        """Return the problem as data; line and column are None if the whole file is meant."""
        where = self.location
        return {
            "message": _cut(self.message),
            "file": where.file if where else None,
            "line": where.line or None if where else None,
            "column": where.column or None if where else None,
            "hint": self.hint,
        }

    def render(self) -> str:
        """Return the problem as text: place and message, the underlined line, the hint."""
        message = _cut(self.message)
        lines = [f"{self.location}: {message}" if self.location else message]
        if self.location and self.location.text.strip():
            number = f"{self.location.line:5d}"
            text, underline = self.location.excerpt()
            lines += [f"{number} | {text}", f"{' ' * len(number)} | {underline}"]
        if self.hint:
            lines.extend(f"   {_cut(line)}" for line in self.hint.splitlines())
        return "\n".join(lines)


class LlmpipeError(Exception):
    """The base class. ``hint`` says what to try next; the command exits with ``exit_code``."""

    exit_code = 2

    def __init__(
        self, message: str, *, location: Location | None = None, hint: str | None = None
    ) -> None:
        self.message = as_text(message)
        super().__init__(self.message)
        self.location = location
        self.hint = hint and as_text(hint)

    def render(self) -> str:
        """Return the error as text for users."""
        return Problem(self.message, self.location, self.hint).render()

    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        """Where it is and what to do about it: Python shows this below a traceback."""
        if self.location is not None:
            return [self.render()]
        return [self.hint] if self.hint else []

    def _render_traceback_(self) -> list[str]:
        """Return the text that a notebook shows: the error without llmpipe's stack frames."""
        return [f"{type(self).__name__}: {self.render()}"]


class UsageError(LlmpipeError):
    """The command line names something that does not exist or options that exclude each other."""


class SpecError(LlmpipeError):
    """A spec cannot be used. ``problems`` holds every mistake, sorted by file and line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = sorted(problems, key=_place)
        first = self.problems[0]
        super().__init__(first.message, location=first.location, hint=first.hint)

    def render(self) -> str:
        lines = [problem.render() for problem in self.problems[:MOST_PROBLEMS]]
        if more := len(self.problems) - len(lines):
            lines.append(f"and {more:,} more problem{'s' * (more > 1)}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return the first problems as data, and how many ``more`` there are."""
        shown = [problem.as_json() for problem in self.problems[:MOST_PROBLEMS]]
        return {"problems": shown, "more": len(self.problems) - len(shown)}


class MissingDependencyError(LlmpipeError):
    """A package, extra or external tool is missing; the hint is the command that installs it."""


class PluginError(LlmpipeError):
    """A stage kind of an installed package fails on import or does not follow the contract."""


class StoreError(LlmpipeError):
    """The store is unreadable, has a newer format, or cannot be written, as on a full disk."""

    exit_code = 1


class HubError(LlmpipeError):
    """The hub cannot be reached, or refuses to publish. The message says what was published."""

    exit_code = 1


class RunError(LlmpipeError):
    """A stage of a run failed. ``run`` describes all its stages; finished ones are kept."""

    exit_code = 1

    def __init__(self, run: Any, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.run = run


class StageError(LlmpipeError):
    """A stage failed, and its user can do something about it. Raised inside the stage's worker."""

    exit_code = 1


class ModelServerError(StageError):
    """A model's server failed or refused a request.

    The message may quote the request. ``gist`` is the message without quotes, for logs.
    """

    def __init__(self, message: str, *, gist: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.gist = gist


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return a hint with the known word closest to ``word``, or None if none is close."""
    import difflib

    if len(str(word)) > LONGEST_WORD:
        return None
    match = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f"did you mean {match[0]!r}?" if match else None


def is_text(text: str) -> bool:
    """Return whether a name or value from the operating system is valid UTF-8."""
    return text.isascii() or _NO_TEXT.search(text) is None


def as_text(text: str) -> str:
    """Return a name or value with U+FFFD for each byte that is not UTF-8."""
    return text if text.isascii() else _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)


def foreign_text(error: BaseException) -> tuple[str, str] | None:
    """Return message and hint if an error comes from text that is not UTF-8, else None."""
    if not isinstance(error, UnicodeEncodeError) or is_text(error.object):
        return None
    around = error.object[max(0, error.start - AROUND) : error.end + AROUND]
    return f"{around!r} is not UTF-8 text", "rename the file, or change the variable, that has it"


def _cut(line: str) -> str:
    """Return a line; of a long line, return the beginning and its length."""
    return (
        line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}… ({len(line):,} characters)"
    )


def _place(problem: Problem) -> tuple[str, int, int]:
    where = problem.location
    return (where.file, where.line, where.column) if where else ("", 0, 0)


def remake(kind: str) -> str:
    """Return the hint for an artifact that has changed since its stage made it."""
    return f"build the {kind} stage again: llmpipe run SPEC --force STAGE"
