"""Extract the code of a page with its lines and indentation, without line numbers."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bs4 import Tag

LINE_NUMBERS = {
    "blob-num", "gutter", "hljs-ln-n", "hljs-ln-numbers", "lineno", "linenos", "linenumber",
    "line-number", "line-numbers-rows", "linenodiv", "ln", "lnt", "normal", "rouge-gutter",
    "special",
}  # fmt: skip
"""Classes by which syntax highlighters mark line numbers."""

CELLS = {"td", "th"}

LINES = {"div", "li", "p", "tr"}
"""Elements inside code that are lines."""

_NUMBERS = re.compile(r"\s*(?:\d+\s+)*\d+\s*|\s*")
_CODE = re.compile(r"(?:^|[-_])(?:code|source|hljs|highlight\w*|blob|linenos?)(?:[-_]|$)")


def as_code(table: Tag) -> bool:
    """Replace a table of line numbers and code by the code; return whether it was one."""
    from bs4 import Tag

    rows: list[list[Tag]] = []
    for row in parts_of(table, {"tr"}, deep=True):
        if cells := parts_of(row, CELLS):
            if not _is_numbered(cells):
                return False
            rows.append(cells)
    is_marked = _is_marked(table)
    if not any(_holds_code(cells[-1], is_marked) for cells in rows):
        return False
    lines = [text(cells[-1]).strip("\n") for cells in rows]
    code = Tag(name="pre")
    code.string = "\n".join(lines)
    table.replace_with(code)
    return True


def parts_of(element: Tag, names: Collection[str], *, deep: bool = False) -> list[Tag]:
    """Return the children (or, with ``deep``, descendants) of an element with given names."""
    from bs4 import Tag  # its own search takes several times as long

    within = element.descendants if deep else element.contents
    return [part for part in within if isinstance(part, Tag) and part.name in names]


def flatten(pre: Tag) -> None:
    """Join preformatted text into one string; syntax highlighters split it into elements."""
    if not pre.decomposed and pre.find(True) is not None:
        pre.string = text(pre)


def text(element: Tag) -> str:
    """Return code as displayed, without line numbers."""
    if element.find(True) is None:
        return element.get_text()
    return re.sub(r"\n\Z", "", "".join(_pieces(element)))


def _pieces(element: Tag) -> list[str]:
    from bs4 import Tag
    from bs4.element import NavigableString, PreformattedString

    pieces: list[str] = []
    for child in element.children:
        if isinstance(child, Tag):
            if child.name == "br":
                pieces.append("\n")
            elif not _is_number(child):
                is_line = child.name in LINES
                if is_line and pieces and not pieces[-1].endswith("\n"):
                    pieces.append("\n")
                inner = _pieces(child)
                pieces += inner
                if is_line and not (inner and inner[-1].endswith("\n")):
                    pieces.append("\n")
        elif isinstance(child, NavigableString) and not isinstance(child, PreformattedString):
            pieces.append(str(child))
    return pieces


def _is_number(tag: Tag) -> bool:
    classes = tag.attrs.get("class")
    if not classes or LINE_NUMBERS.isdisjoint(classes):
        return False
    return _NUMBERS.fullmatch(tag.get_text()) is not None


def _is_numbered(cells: list[Tag]) -> bool:
    return len(cells) > 1 and all(_NUMBERS.fullmatch(cell.get_text()) for cell in cells[:-1])


def _holds_code(cell: Tag, is_marked: bool) -> bool:
    return is_marked or _is_marked(cell) or cell.find("pre") is not None


def _is_marked(tag: Tag) -> bool:
    return any(_CODE.search(name) for name in tag.attrs.get("class") or ())
