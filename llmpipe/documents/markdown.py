"""Convert Markdown: the text is kept, headings divide it, and front matter becomes metadata.

Embedded HTML with a meaning, such as headings and powers, becomes Markdown. Comments are removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from llmpipe.documents import front_matter, markdown_html
from llmpipe.documents.parts import Converted, Heading, clean, one_line, scalars, sections_of
from llmpipe.documents.plain import decode

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_PLAIN = re.compile(r"(?:[^\\`*_!&<\[\]]|`[^\s`](?:[^`]*[^\s`])?`(?!`))*+")
"""A line of text without markup except short code."""


def convert(data: bytes, label: str) -> Converted:
    """Convert Markdown (CommonMark with tables).

    Raises:
        StageError: it is not text.
    """
    decoded = decode(data, label)
    found = of_text(clean(decoded.text))
    return replace(found, remarks=(*decoded.remarks, *found.remarks))


def of_text(text: str) -> Converted:
    """Convert Markdown text; front matter is cut off and read."""
    matter = front_matter.read(text)
    values = dict(matter.values)
    named = values.get("title")
    if type(named) in (int, float):  # 1984 is a valid title
        named = str(named)
    if isinstance(named, str) and "{{" not in named:  # otherwise it is a template
        del values["title"]
    else:
        named = None
    found = sectioned(markdown_html.plain(text[matter.length :]))
    return replace(
        found,
        title=(one_line(named) if named else "") or found.title,
        metadata=scalars(values),
        remarks=matter.remarks,
    )


def sectioned(text: str) -> Converted:
    """Return a text with its sections; the first heading of level 1 is the title."""
    found = list(headings(text))
    title = next((heading.title for heading in found if heading.level == 1), "")
    return Converted(text, sections_of(text, found), title)


def headings(text: str) -> Iterator[Heading]:
    """Yield the headings of a Markdown text, in order of position."""
    line_starts = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
    tokens = _block_parser().parse(text)
    for opening, content in pairwise(tokens):
        if opening.type == "heading_open" and opening.level == 0 and opening.map:
            title = _words(content)
            if title:
                yield Heading(int(opening.tag[1]), title, line_starts[opening.map[0]])


def _words(token: Token) -> str:
    """Return the text of a heading without its markup."""
    if _PLAIN.fullmatch(token.content):  # most headings: parsing is slow
        return one_line(token.content.replace("`", ""))
    inline = _parser().parseInline(token.content)[0]
    pieces = ((" " if part.type == "softbreak" else part.content) for part in inline.children or ())
    return one_line("".join(pieces))


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("table")


@cache
def _block_parser() -> MarkdownIt:
    """Return a parser that skips inline markup, which matters only in headings."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("table").disable("inline")
