"""Markdown: the text stays as it is written; headings divide it, front matter becomes metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from llmpipe.documents.parts import Converted, Heading, clean, one_line, scalars, sections_of
from llmpipe.documents.plain import decode

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?\n)(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)


def convert(data: bytes, label: str) -> Converted:
    """Read Markdown (CommonMark, with tables).

    Raises:
        StageError: it is no text.
    """
    return of_text(clean(decode(data, label)))


def of_text(text: str) -> Converted:
    """Give Markdown text with its sections; front matter is cut off and read."""
    matter, length = _front_matter(text)
    text = text[length:]
    found = list(headings(text))
    named = matter.pop("title", None)
    first = next((heading.title for heading in found if heading.level == 1), "")
    title = one_line(named) if isinstance(named, str) else first
    return Converted(text, sections_of(text, found), title, metadata=scalars(matter))


def _front_matter(text: str) -> tuple[dict[Any, Any], int]:
    """Give the YAML mapping at the top of a text, and how many characters it takes."""
    match = FRONT_MATTER.match(text)
    if not match:
        return {}, 0
    import yaml

    try:
        found = yaml.load(match[1], Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}, 0  # a text between two rules
    return (found, match.end()) if isinstance(found, dict) else ({}, 0)


def headings(text: str) -> Iterator[Heading]:
    """Give the headings of a Markdown text, in order of their place."""
    line_starts = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
    tokens = _block_parser().parse(text)
    for opening, content in pairwise(tokens):
        if opening.type == "heading_open" and opening.level == 0 and opening.map:
            title = _words(content)
            if title:
                yield Heading(int(opening.tag[1]), title, line_starts[opening.map[0]])


def _words(token: Token) -> str:
    """Give the text of a heading without its markup."""
    inline = _parser().parseInline(token.content)[0]
    pieces = ((" " if part.type == "softbreak" else part.content) for part in inline.children or ())
    return one_line("".join(pieces))


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("table")


@cache
def _block_parser() -> MarkdownIt:
    """Give a parser that leaves alone what stands inside blocks: it matters in headings only."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("table").disable("inline")
