"""Find the parts of a text that must stay byte for byte: code, placeholders, markup, addresses.

They are fenced and inline code, ``{name}``, ``{{name}}``, ``${name}``, ``%(name)s`` and ``%s``,
tags of HTML and XML, and addresses of the web.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

_KEPT = re.compile(
    r"""
    ^(?P<fence>`{3,}|~{3,})[^\n]*\n (?:.*?\n)?? (?P=fence)[`~]*[ \t]*$   # fenced code
  | ^(?:`{3,}|~{3,})[^\n]*\n .*                       # a fence that is never closed: all of it
  | (?<![`A-Za-zÀ-ɏ])(?P<ticks>`+)(?!`)           # inline code, in one paragraph: no apostrophe
    (?:(?!\n[ \t\r]*\n).)+?(?<!`)(?P=ticks)(?!`)
  | \$?\{\{.*?\}\} | \{%.*?%\} | \$?\{[\w.!:\[\]-]*\} # {name}, {{name}}, {% name %}, ${name}
  | %\(\w+\)[sdrif] | %[sdrif]\b                      # Python's and C's
  | </?[A-Za-z][^<>\n]*> | <\|[^<>\n]*\|>             # tags, control tokens
  | https?://[^\s<>()\[\]"']*[^\s<>()\[\]"'.,;:!?]
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_MARKER = re.compile(r"\[\[(\d+)\]\]")


@dataclass(frozen=True, slots=True)
class Masked:
    """A text whose kept parts are replaced by markers such as ``[[0]]``."""

    text: str
    parts: tuple[str, ...]

    def restored(self, text: str) -> str | None:
        """Return a text with the parts in the place of their markers.

        None if a marker is missing, occurs twice, or is not one of them.
        """
        markers = Counter(int(match[1]) for match in _MARKER.finditer(text))
        if markers != Counter(range(len(self.parts))):
            return None
        return _MARKER.sub(lambda match: self.parts[int(match[1])], text)

    @property
    def prose(self) -> str:
        """The text without its markers."""
        return _MARKER.sub(" ", self.text)


def kept_parts(text: str) -> list[str]:
    """Return the parts of a text that must stay as they are, in their order."""
    return [match[0] for match in _KEPT.finditer(text)]


def masked(text: str) -> Masked | None:
    """Replace the kept parts of a text by markers; None if the text has such markers itself."""
    if _MARKER.search(text):
        return None
    parts: list[str] = []

    def mark(match: re.Match[str]) -> str:
        parts.append(match[0])
        return f"[[{len(parts) - 1}]]"

    return Masked(_KEPT.sub(mark, text), tuple(parts))
