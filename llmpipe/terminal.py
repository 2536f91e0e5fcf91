"""The way of every message to a terminal, which obeys none of it.

Names of files, ids of stages, excerpts of specs, logs and what other machines report may hold
control characters. A command runs with a `Guard` before standard output and standard error, which
shows each as U+FFFD. Only what draws on the terminal itself goes around it, and guards its texts.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, cast

from llmpipe.errors import as_text

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Control characters but for tab and line break; what breaks a line, or turns its direction."""
_COLOUR = re.compile("\x1b\\[[0-9;:]*m")


def guarded(text: str) -> str:
    """Return a text as a terminal may be given it."""
    return text if text.isascii() and text.isprintable() else _shown(text)


def uncoloured(line: str) -> str:
    """Return a line of a program's output without its colours."""
    return _COLOUR.sub("", line)


def json_safe(text: str) -> str:
    """Return JSON text that means the same and in which no character steers a terminal."""
    return _STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class Guard:
    """A text stream that writes what it is given to another one, guarded."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        self.stream.write(guarded(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts one after the other."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def guarding() -> Iterator[None]:
    """Put guards before standard output and standard error, those that are open."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (stream and cast(TextIO, Guard(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def unguarded(stream: TextIO) -> TextIO:
    """Return the stream behind a guard, for what draws on the terminal itself."""
    return stream.stream if isinstance(stream, Guard) else stream


def redraw(text: str, end: str = "") -> None:
    """Write a line over the one that stands on standard error, where that is a terminal."""
    if sys.stderr.isatty():
        stream = unguarded(sys.stderr)
        print(f"\r\x1b[K{guarded(text)}", end=end, file=stream, flush=True)


def _shown(text: str) -> str:
    return as_text(_STEERING.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n")))
