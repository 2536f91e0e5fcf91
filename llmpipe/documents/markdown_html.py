"""Convert HTML inside Markdown: headings and tables to Markdown, powers to text, no comments.

Code is unchanged, and so are elements that only format text and tables with code blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

from llmpipe.documents import notation, simple_tables
from llmpipe.documents.parts import one_line

NEAR = 200
"""How many characters of a line decide how the following element is written."""

LONGEST_SPAN = 2000
"""Limit in characters of inline code; a longer span is taken as a stray backtick."""

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")

_OF_INTEREST = re.compile(
    r"(?im)<(?:!--|h[1-6]\b|su[bp]\b|table\b|summary\b|details\b|math\b)|^\[//\]:"
)

_TOKENS = re.compile(
    rf"""(?imx)
    ^(?:
        (?P<fence>[ \t>]*(?:(?:[-*+]|\d+[.)])[ \t]+)*(?P<mark>`{{3,}}|~{{3,}})[^\n]*
            (?:\n(?![ \t>]*(?P=mark)[`~]*[ \t]*$)[^\n]*)*
            (?:\n[ \t>]*(?P=mark)[`~]*[ \t]*$)?)
      | (?P<indented>(?:(?<=\n\n)|\A)(?:(?:[ ]{{4}}|\t)[^\n]*(?:\n|\Z))+)
      | (?P<remark>\[//\]:[ \t]*(?:\#|<>)[^\n]*$)
    )
  | `(?:
        (?P<code>(?<!``)(?P<ticks>`*)(?!`)
            (?:(?!\n[ \t]*\n)[^`]|(?!`(?P=ticks)(?!`))`++){{1,{LONGEST_SPAN}}}`(?P=ticks)(?!`))
    )
  | <(?:
        (?P<empty>!--(?:>|->)|/?details\b[^>]*>)
      | (?P<comment>!--)
      | (?P<element>h[1-6]|summary|table|math)\b[^>]*>
      | (?P<script>su[bp])\b[^>]*>(?P<raised>[^\n]{{0,200}}?)</(?P=script)\s*>
    )
    """
)

_CLOSERS = {
    name: re.compile(rf"(?i)</{name}\s*>") for name in (*HEADINGS, "summary", "table", "math")
} | {"comment": re.compile("-->")}
_TAG = re.compile(r"(?s)<[/a-zA-Z][^<>]*>")
_ALT = re.compile(r"""(?i)\balt\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+))""")
_LINK = re.compile(r"!?\[([^\]]*)\]\(([^)]*)\)")
_TABLE_TAG = re.compile(r"(?i)<(/?)table\b[^<>]*>")
_QUOTED = re.compile(r"(?m)^[ \t]*(?:>[ \t]?)+")
_ITEM = re.compile(r"(?:[-*+]|\d+[.)])[ \t]+")
_NESTED = re.compile(r"[ \t]*(?:[-*+>|]|\d+[.)])")


def plain(text: str) -> str:
    """Return a Markdown text in which HTML is replaced by what it displays."""
    if not _OF_INTEREST.search(text):
        return text
    pieces: list[str] = []
    at = 0
    for start, end, written in _rewritten(text):
        if written.startswith("\n\n"):
            written = _apart(text, start, end, written.strip("\n"))
        elif not written and _is_alone(text, start, end):
            start, end = text.rfind("\n", 0, start) + 1, end + 1  # the whole line goes
        pieces += [text[at : max(at, start)], written]
        at = end
    return "".join([*pieces, text[at:]])


def _rewritten(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield the spans that change, each with its replacement."""
    closed = dict.fromkeys(_CLOSERS, True)  # whether another closing tag may follow
    at = 0
    while match := _TOKENS.search(text, at):
        at = match.end()
        name = (match["element"] or "").lower() or ("comment" if match["comment"] else "")
        if name:
            closer = _CLOSERS[name].search(text, at) if closed[name] else None
            if closer is None:
                closed[name] = False
                continue
            at = closer.end()
            if name == "table":
                at = _end_of_table(text, match.end())
                start, written = _table(text, match.start(), at)
                if written is not None:
                    yield start, at, written
                continue
            written = _element(match, name, text[match.end() : closer.start()])
        elif match["raised"] is not None:
            written = _script(match)
        else:
            written = "" if match["empty"] or match["remark"] else None
        if written is not None:
            yield match.start(), at, written


def _element(opening: re.Match[str], name: str, inner: str) -> str | None:
    """Return an element as Markdown, blocks between blank lines; None to keep it."""
    if name == "comment":
        return ""
    if name == "summary":
        return _summary(inner)
    if name in HEADINGS:
        return _heading(inner, int(name[1]), _line_before(opening))
    return None


def _end_of_table(text: str, at: int) -> int:
    """Return where a table with its nested tables ends; the last closing tag if its own lacks."""
    depth = 1
    for match in _TABLE_TAG.finditer(text, at):
        depth += -1 if match[1] else 1
        if match[1]:
            at = match.end()
        if not depth:
            break
    return at


def _table(text: str, start: int, end: int) -> tuple[int, str | None]:
    """Return where a table starts and its Markdown, indented like its list or quote."""
    source = text[start:end]
    line = text.rfind("\n", 0, start) + 1
    before = text[line:start]
    if "```" in source or "~~~" in source or len(before) > NEAR:
        return start, None
    if ">" in before:
        source = _QUOTED.sub("", source)
    lines = (simple_tables.written(source) or _read(source)).split("\n")
    if not any(lines):
        return start, None
    if not before.strip(" \t>"):
        return line, "\n\n" + "\n".join(before + row for row in lines)
    if _NESTED.match(before) and not _ITEM.sub("", before).strip(" \t>"):
        return start, f"\n{' ' * len(before)}".join(lines)
    return start, "\n\n" + "\n".join(lines)


def _read(source: str) -> str:
    from llmpipe.documents import html  # html imports the markdown module, which imports this one

    return html.fragment(source)


def _apart(text: str, start: int, end: int, block: str) -> str:
    """Put a block between blank lines, unless they exist."""
    before = text[max(0, start - 2) : start]
    after = text[end : end + 2]
    left = "" if not before or before == "\n\n" else "\n" if before.endswith("\n") else "\n\n"
    right = "" if after in ("", "\n", "\n\n") else "\n" if after.startswith("\n") else "\n\n"
    return f"{left}{block}{right}"


def _is_alone(text: str, start: int, end: int) -> bool:
    """Return whether a span is alone on its lines."""
    before = text[max(0, start - NEAR) : start].rpartition("\n")[2]
    return not before.strip() and text[end : end + 1] in ("\n", "")


def _heading(inner: str, level: int, before: str) -> str | None:
    title = _title(inner)
    if not title:
        return None
    if _NESTED.match(before):  # in a list or a quote, not a heading of the document
        return f"**{title}**"
    return f"\n\n{'#' * level} {title}\n\n"


def _summary(inner: str) -> str:
    if re.search(r"(?i)<h[1-6]\b", inner):
        return f"\n\n{plain(inner).strip()}\n\n"
    title = _title(inner)
    return f"\n\n**{title}**\n\n" if title else ""


def _title(html: str) -> str:
    """Return the text of an element, or the descriptions of its pictures."""
    words = one_line(unescape(_TAG.sub("", html)))
    if words:
        return words
    return one_line(" ".join(next(filter(None, alt.groups()), "") for alt in _ALT.finditer(html)))


def _script(match: re.Match[str]) -> str:
    content = match["raised"]
    is_note = "(#" in content or 'href="#' in content
    content = unescape(_TAG.sub("", _LINK.sub(r"\1", content)))
    before = _TAG.sub("", _line_before(match))
    after = match.string[match.end() : match.end() + NEAR].partition("\n")[0]
    after = _TAG.sub("", after).partition("<")[0]
    if match["script"].lower() == "sub":
        return notation.lowered(before, content, after)
    return notation.raised(before, content, after, is_note=is_note)


def _line_before(match: re.Match[str]) -> str:
    near = match.string[max(0, match.start() - NEAR) : match.start()]
    return near.rpartition("\n")[2]
