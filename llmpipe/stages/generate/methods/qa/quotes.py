"""Find a quote in its passage and return its offsets.

A quote is found if it stands in the passage word for word. Both are compared in Unicode's form
NFKC, with typographic quotes and dashes as the plain ones and each run of white space as one space;
case matters. A quote begins and ends at the edge of a word. The offsets count characters (Unicode
code points) of the passage as it is, and the text between them is what a row keeps.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from llmpipe.words import sets_spaces

_PLAIN = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛", "'"),
        **dict.fromkeys("“”„‟«»", '"'),
        **dict.fromkeys("‐‑‒–—―−", "-"),
        "\u00ad": None,  # a soft hyphen shows only where a line ends
        "\u200b": None,
    }
)


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a text."""

    start: int
    end: int

    def of(self, text: str) -> str:
        """Return the part."""
        return text[self.start : self.end]


class Quotable:
    """A passage in the form in which quotes are compared, with the offset of every character."""

    def __init__(self, text: str) -> None:
        self.text = text
        letters: list[str] = []
        spans: list[Span] = []
        for span in _clusters(text):
            for letter in _canonical(span.of(text)):
                if letter == " " and letters and letters[-1] == " ":
                    spans[-1] = Span(spans[-1].start, span.end)
                    continue
                letters.append(letter)
                spans.append(span)
        self._text = "".join(letters)
        self._spans = spans

    def find(self, quote: str) -> Span | None:
        """Return where the quote stands first, or None."""
        wanted = canonical(quote)
        at = self._text.find(wanted) if wanted else -1
        while at >= 0:
            end = at + len(wanted)
            if self._is_edge(at) and self._is_edge(end):
                span = Span(self._spans[at].start, self._spans[end - 1].end)
                if canonical(span.of(self.text)) == wanted:  # not a part of a ligature
                    return span
            at = self._text.find(wanted, at + 1)
        return None

    def _is_edge(self, at: int) -> bool:
        """Return whether a word may begin or end before a character."""
        around = self._text[at - 1 : at + 1] if at else ""
        return len(around) < 2 or not around.isalnum() or not sets_spaces(around)


def canonical(text: str) -> str:
    """Return a text in the form in which quotes are compared."""
    return " ".join("".join(_canonical(span.of(text)) for span in _clusters(text)).split())


def _canonical(cluster: str) -> str:
    plain = unicodedata.normalize("NFKC", cluster).translate(_PLAIN)
    return " " if plain.isspace() else plain


def _clusters(text: str) -> list[Span]:
    """Return the characters as a reader sees them: a letter together with its accents."""
    import regex

    return [Span(*match.span()) for match in regex.finditer(r"\X", text)]
