"""Keep control characters in messages from steering the terminal.

File names, stage ids, excerpts of specs, logs and replies of other machines may contain control
characters. A command runs with a `Guard` in front of standard output and standard error, which
replaces each with U+FFFD. Only code that draws on the terminal bypasses it, and guards its texts.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, cast

from llmpipe.errors import as_text

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Control characters except tab and line feed, line separators, and marks of text direction."""
_COLOR = re.compile("\x1b\\[[0-9;:]*m")


def guarded(text: str) -> str:
    """Return a text that is safe to print on a terminal."""
    return text if text.isascii() and text.isprintable() else _shown(text)


def uncolored(line: str) -> str:
    """Return a line of a program's output without its colors."""
    return _COLOR.sub("", line)


def json_safe(text: str) -> str:
    """Return equivalent JSON text with control characters escaped."""
    return _STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class Guard:
    """A text stream that guards texts and writes them to another stream."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        self.stream.write(guarded(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def close(self) -> None:
        """Leave the other stream open.

        A logging handler that takes this guard for a file of its own, as absl's does, closes it
        when logging is configured again.
        """

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def guarding() -> Iterator[None]:
    """Put guards in front of standard output and standard error, if they are open."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (stream and cast(TextIO, Guard(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def unguarded(stream: TextIO) -> TextIO:
    """Return the stream behind a guard, for code that draws on the terminal."""
    return stream.stream if isinstance(stream, Guard) else stream


def redraw(text: str, end: str = "") -> None:
    """Replace the current line on standard error, if it is a terminal."""
    if sys.stderr.isatty():
        stream = unguarded(sys.stderr)
        print(f"\r\x1b[K{guarded(text)}", end=end, file=stream, flush=True)


def _shown(text: str) -> str:
    return as_text(_STEERING.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n")))
