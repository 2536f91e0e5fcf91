"""Every error that llmpipe raises on purpose, and the exit code that each one ends in.

    LlmpipeError                    2   base class: message, location, hint
    ├── UsageError                  2   the command line asks for something that makes no sense
    ├── SpecError                   2   the spec is wrong; carries every Problem, sorted by place
    ├── MissingDependencyError      2   a package or tool that this work needs is not installed
    ├── PluginError                 2   an installed package offers a stage kind that cannot be used
    ├── StoreError                  1   the store cannot be read or written
    └── StageError                  1   a stage could not do its work; its user can act on it
        └── ModelServerError        1   a model's server failed; may quote what it was asked

Ctrl-C ends in 130. Anything else that escapes is a bug in llmpipe and shows its traceback.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

EXCERPT = 100
"""Characters of a line that a message shows."""
_NO_TEXT = re.compile("[\ud800-\udfff]")
"""How Python shows the bytes of a name that is not UTF-8."""
AROUND = 40
"""Characters that a message shows on both sides of what is no text."""
LONGEST_LINE = 2000
"""Characters of a message, or of a line of a hint, that are shown."""
MOST_PROBLEMS = 100
"""Problems of a file that are told, by their places; the others are counted."""
LONGEST_WORD = 1000
"""Characters of a word that may be a mistyped one; to compare a longer text only takes time."""


class Location(NamedTuple):
    """A place in a text file. Lines and columns count from 1; ``length`` is what to underline.

    Line 0 is the file as a whole. A tuple, because a spec has several for each of its values.
    """

    file: str
    line: int
    column: int
    text: str = ""
    length: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def excerpt(self) -> tuple[str, str]:
        """Give the line, or what of a long one lies around the place, and its underline."""
        start = max(0, self.column - 1 - EXCERPT // 2) if len(self.text) > EXCERPT else 0
        text = self.text[start : start + EXCERPT].rstrip()
        before, after = "…" * (start > 0), "…" * (start + EXCERPT < len(self.text.rstrip()))
        at = self.column - 1 - start
        length = max(1, min(self.length, len(text) - at))
        return f"{before}{text}{after}", " " * (len(before) + at) + "^" * length


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a spec, where it stands, and what to do about it."""

    message: str
    location: Location | None = None
    hint: str | None = None

    def as_json(self) -> dict[str, str | int | None]:
        """Give the problem as data; line and column are None where the file as a whole is meant."""
        where = self.location
        return {
            "message": _cut(self.message),
            "file": where.file if where else None,
            "line": where.line or None if where else None,
            "column": where.column or None if where else None,
            "hint": self.hint,
        }

    def render(self) -> str:
        """Give the problem as text: place and message, the line with its underline, the hint."""
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
    """Base class. ``hint`` says what to try next; ``exit_code`` is what the command ends with."""

    exit_code = 2

    def __init__(
        self, message: str, *, location: Location | None = None, hint: str | None = None
    ) -> None:
        self.message = as_text(message)
        super().__init__(self.message)
        self.location = location
        self.hint = hint and as_text(hint)

    def render(self) -> str:
        """Give the error as a user should read it."""
        return Problem(self.message, self.location, self.hint).render()


class UsageError(LlmpipeError):
    """The command line names something that does not exist or options that exclude each other."""


class SpecError(LlmpipeError):
    """A spec cannot be used. ``problems`` holds all that was found, sorted by file and line."""

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
    """A package, extra or outside tool is missing; the hint is the command that installs it."""


class PluginError(LlmpipeError):
    """A stage kind that an installed package offers breaks on import or lacks the contract."""


class StoreError(LlmpipeError):
    """The store is unreadable, of a newer format, or could not be written (a full disk, say)."""

    exit_code = 1


class StageError(LlmpipeError):
    """A stage failed for a reason that its user can act on. Raised inside the stage's worker."""

    exit_code = 1


class ModelServerError(StageError):
    """A server that computes for us failed or refused.

    Its own words in the message may quote what it was asked. ``gist`` is what can be told without
    them, in a log for instance.
    """

    def __init__(self, message: str, *, gist: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.gist = gist


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Name the known word closest to ``word`` as a hint, or None when nothing is close."""
    import difflib

    if len(str(word)) > LONGEST_WORD:
        return None
    match = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f"did you mean {match[0]!r}?" if match else None


def is_text(text: str) -> bool:
    """Return whether a name or value that the system handed over is UTF-8, as all we write is."""
    return text.isascii() or _NO_TEXT.search(text) is None


def as_text(text: str) -> str:
    """Return a name or value with U+FFFD for each byte that is no text."""
    return text if text.isascii() else _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)


def foreign_text(error: BaseException) -> tuple[str, str] | None:
    """Return message and hint where an error comes of writing what is no text, else None."""
    if not isinstance(error, UnicodeEncodeError) or is_text(error.object):
        return None
    around = error.object[max(0, error.start - AROUND) : error.end + AROUND]
    return f"{around!r} is not UTF-8 text", "rename the file, or change the variable, that has it"


def _cut(line: str) -> str:
    """Return a line, or the beginning of a long one and how long it is."""
    return (
        line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}… ({len(line):,} characters)"
    )


def _place(problem: Problem) -> tuple[str, int, int]:
    where = problem.location
    return (where.file, where.line, where.column) if where else ("", 0, 0)


def remake(kind: str) -> str:
    """Give the hint for an artifact that is not as its stage made it."""
    return f"make it anew: llmpipe run SPEC --force and the {kind} stage's name"
