"""Write the docutils tree of a document as plain text, with the positions of its headings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llmpipe.documents import notation
from llmpipe.documents.numbers import letters, roman
from llmpipe.documents.parts import Heading, clean, one_line
from llmpipe.documents.tables import Cell, joined_names, spread, table

_BACKTICKS = re.compile(r"`{3,}")


def written(tree: Any) -> tuple[str, list[Heading]]:
    """Return a ``docutils.nodes.document`` as text, with its headings."""
    parts: list[str] = []
    headings: list[Heading] = []
    place = 0
    for level, text in _top(tree, 0):
        text = clean(text)
        if level:
            headings.append(Heading(level, one_line(text), place))
            text = f"{'#' * level} {one_line(text)}"
        parts.append(text + "\n\n")
        place += len(parts[-1])
    if parts:
        parts[-1] = parts[-1][:-1]
    return "".join(parts), headings


def _top(node: Any, level: int) -> Iterator[tuple[int, str]]:
    """Yield the headings of a section with their levels, and its blocks with level 0."""
    for child in node.children:
        kind = type(child).__name__
        if kind == "section":
            yield from _top(child, level + 1)
            continue
        text = _inline(child) if kind == "title" else _block(child)
        if text.strip():
            yield (level if kind == "title" else 0), text


def _block(node: Any) -> str:
    """Return a block as text, without surrounding blank lines."""
    kind = type(node).__name__
    if kind in _SILENT or (kind == "topic" and "contents" in node.get("classes", ())):
        return ""
    writer = _WRITERS.get(kind)
    if writer is not None:
        return writer(node)
    if kind in _ADMONITIONS:
        return f"{kind.capitalize()}: {_blocks(node)}"
    if any(type(child).__name__ == "Text" for child in node.children):
        return _inline(node)
    return _blocks(node)


def _blocks(node: Any, between: str = "\n\n") -> str:
    texts = (_block(child) for child in node.children)
    return between.join(text for text in texts if text.strip())


def _inline(node: Any) -> str:
    kind = type(node).__name__
    if kind == "Text":
        return str(node.astext())
    if kind in ("system_message", "target", "substitution_definition", "raw"):
        return ""
    if kind == "image":
        return str(node.get("alt", ""))
    inner = _joined(node.children)
    if kind == "literal":
        return f"`{inner}`"
    if kind in ("footnote_reference", "citation_reference"):
        return f"[{inner}]"
    address = node.get("refuri", "") if kind == "reference" else ""
    if address.startswith(("http://", "https://")) and address != inner:
        return f"{inner} ({address})"
    return inner


def _joined(children: Sequence[Any]) -> str:
    """Return inline nodes as text; scripts are written according to the text around them."""
    text = ""
    for at, child in enumerate(children):
        script = _SCRIPTS.get(type(child).__name__)
        inner = _inline(child)
        if script is None:
            text += inner
        else:
            following = children[at + 1].astext() if at + 1 < len(children) else ""
            text += script(text, inner, following)
    return text


def _code(node: Any) -> str:
    code = node.astext().strip("\n")
    fence = max(("```", *(run + "`" for run in _BACKTICKS.findall(code))), key=len)
    language = str(node.get("language", ""))
    return f"{fence}{language if language.isalnum() else ''}\n{code}\n{fence}"


def _bullets(node: Any) -> str:
    return _items(node, lambda number: "- ")


def _numbers(node: Any) -> str:
    """Return a list with the numbers of its source, since a first number may be a date."""
    first, kind = node.get("start", 1), str(node.get("enumtype", "arabic"))
    prefix, suffix = node.get("prefix", ""), node.get("suffix") or "."
    shown = roman if kind.endswith("roman") else letters if kind.endswith("alpha") else str

    def mark(number: int) -> str:
        text = shown(first + number)
        return f"{prefix}{text.upper() if kind.startswith('upper') else text}{suffix} "

    return _items(node, mark)


def _items(node: Any, mark: Callable[[int], str]) -> str:
    items = [_blocks(item) for item in node.children]
    apart = "\n\n" if any("\n\n" in item for item in items) else "\n"
    return apart.join(_hanging(mark(i), item) for i, item in enumerate(items))


def _hanging(mark: str, text: str) -> str:
    return mark + _indented(text, " " * len(mark)).lstrip()


def _indented(text: str, by: str = "    ") -> str:
    return "\n".join(by + line if line.strip() else line for line in text.split("\n"))


def _definition(node: Any) -> str:
    terms = [_inline(child) for child in node.children if type(child).__name__ == "term"]
    meaning = [_blocks(child) for child in node.children if type(child).__name__ == "definition"]
    return "\n".join([*terms, *map(_indented, meaning)])


def _field(node: Any) -> str:
    name, body = node.children
    return _hanging(f"{_inline(name)}: ", _blocks(body))


def _option(node: Any) -> str:
    names, description = node.children
    return f"`{names.astext()}`\n{_indented(_blocks(description))}"


def _quote(node: Any) -> str:
    return "\n".join(f"> {line}".rstrip() for line in _blocks(node).split("\n"))


def _lines(node: Any) -> str:
    """Return a block with the line breaks of its source."""
    return "\n".join(
        _indented(_lines(child)) if type(child).__name__ == "line_block" else _inline(child)
        for child in node.children
    )


def _note(node: Any) -> str:
    """Return a footnote or citation."""
    label, *rest = node.children
    texts = [_block(child) for child in rest]
    return _hanging(f"[{label.astext()}] ", "\n\n".join(text for text in texts if text))


def _table(node: Any) -> str:
    rows: list[list[str | None]] = []
    for part in node.findall(lambda inner: type(inner).__name__ in ("thead", "tbody")):
        lines = spread([[_cell(entry) for entry in row.children] for row in part.children])
        rows += [[*joined_names(lines)]] if type(part).__name__ == "thead" else lines
    title = next((_inline(child) for child in node.children if type(child).__name__ == "title"), "")
    return "\n\n".join(filter(None, [title, table(rows)]))


def _cell(entry: Any) -> Cell[str]:
    across, down = entry.get("morecols", 0) + 1, entry.get("morerows", 0) + 1
    return Cell(_blocks(entry, " "), across, down)


_SCRIPTS = {"superscript": notation.raised, "subscript": notation.lowered}


_ADMONITIONS = {
    "attention", "caution", "danger", "error", "hint", "important", "note", "tip", "warning",
}  # fmt: skip

_SILENT = {
    "comment", "decoration", "meta", "pending", "raw", "substitution_definition",
    "system_message", "target",
}  # fmt: skip

_WRITERS: Mapping[str, Callable[[Any], str]] = {
    "block_quote": _quote,
    "bullet_list": _bullets,
    "citation": _note,
    "definition_list_item": _definition,
    "doctest_block": _code,
    "enumerated_list": _numbers,
    "field": _field,
    "field_list": lambda node: _blocks(node, "\n"),
    "footnote": _note,
    "image": _inline,
    "line_block": _lines,
    "literal_block": _code,
    "math_block": _code,
    "option_list_item": _option,
    "paragraph": _inline,
    "table": _table,
    "Text": _inline,
    "transition": lambda node: "---",
}
