"""Prepare tables of a page: repeat merged cells, restore code lines, unwrap layout tables.

Markdown has no merged cells. A cell that spans rows or columns applies to all of them, so its text
is repeated in each. A table that only lays out a page (its cells contain headings or tables) is
unwrapped. Several header rows become one.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from itertools import groupby, takewhile, zip_longest
from typing import TYPE_CHECKING

from llmpipe.documents.html_code import CELLS, as_code, parts_of
from llmpipe.documents.tables import WIDEST, Cell, spread

if TYPE_CHECKING:
    from bs4 import Tag

MOST_REPEATED = 1_000_000
"""Limit of characters that repeated cells may add to a table; further cells stay empty."""

TAG = 10
"""How many characters an element in a repeated cell counts as, in addition to its text."""

STEPS = {
    "back", "contents", "first", "home", "index", "last", "next", "next page", "prev", "previous",
    "previous page", "top", "up",
}  # fmt: skip
"""Texts of links to neighboring pages."""

FEW_CELLS = 10
"""Limit of cells in a table of links to neighboring pages."""

COLUMNS = "data-columns"
"""Attribute of a table's first row with the number of columns."""

_MARKS = re.compile(r"[\s«»<>|:,\[\]()←→↑‹›·•/-]+")
_BORDER = re.compile(r"(?i)\bborder(?:ed\b|\s*:\s*(?!0|none|hidden))")
_DIGITS = re.compile(r"\s*\+?([0-9]{1,9})")
_TABLES = ("table", "grid", "treegrid")
_HOLDS = {
    "table": {"caption", "thead", "tbody", "tfoot", "tr"}, "thead": {"tr"}, "tbody": {"tr"},
    "tfoot": {"tr"}, "tr": CELLS,
}  # fmt: skip
"""What each part of a table may contain."""

_AROUND_CELLS = {*_HOLDS, *CELLS}
_HEADINGS = ["h1", "h2", "h3", "h4", "h5", "h6"]


def is_navigation(table: Tag) -> bool:
    """Return whether a table contains only links, such as those to neighboring pages."""
    if str(table.attrs.get("summary", "")).lower().startswith("navigation"):
        return True
    links = table.find_all("a", href=True)
    if not links or table.find("pre") is not None:
        return False
    cells = table.find_all(["td", "th"])
    if sum(map(step, links)) > 1 and len(cells) <= FEW_CELLS:
        return True
    linked = sum(len(_MARKS.sub("", link.get_text())) for link in links)
    text = _MARKS.sub("", table.get_text())
    return 0 < len(text) <= linked and all(cell.name == "td" for cell in cells)


def step(link: Tag) -> bool:
    """Return whether a link's text says that it leads to a neighboring page."""
    return _MARKS.sub(" ", link.get_text()).strip().lower() in STEPS


def prepare(table: Tag) -> None:
    """Convert a table to what Markdown supports: equal columns per row and text in cells."""
    if table.decomposed or table.parent is None or table.name != "table":
        return  # it was removed or converted
    if table.find_parent("table") is not None:
        return  # the outer table converts it
    if as_code(table) or _taken_apart(table):
        return
    for inner in reversed(parts_of(table, {"table"}, deep=True)):  # the innermost first
        if not inner.decomposed:
            _leave_cells_alone(inner)
            inner.replace_with(_in_a_cell(inner))
    _leave_cells_alone(table)
    _fill(list(_rows(table)))


def _taken_apart(table: Tag) -> bool:
    """Unwrap a table that lays out a page; return whether it was one."""
    is_frame = table.get("role") in ("presentation", "none")
    if not is_frame and (table.find([*_HEADINGS, "table", "pre"]) is None or _is_data(table)):
        return False
    inner = table.find_all("table")
    parts = ["tbody", "thead", "tfoot", "tr", "td", "th", "caption", "colgroup"]
    for part in table.find_all(parts):
        if part.find_parent("table") is table:
            part.name = "div"
    table.name = "div"
    for one in inner:
        prepare(one)
    return True


def _is_data(table: Tag) -> bool:
    """Return whether a table is marked as one, or has visible borders and no headings."""
    own = table.find_all(["th", "thead", "caption"])
    if table.get("role") in _TABLES or any(part.find_parent("table") is table for part in own):
        return True
    rows = [parts_of(row, CELLS) for row in _rows(table)]
    is_grid = len(rows) > 1 and max(map(len, rows)) > 1
    return is_grid and _has_lines(table) and table.find(_HEADINGS) is None


def _has_lines(table: Tag) -> bool:
    if str(table.attrs.get("border", "0")).strip() != "0" or "rules" in table.attrs:
        return True
    first = parts_of(next(_rows(table)), CELLS)
    styles = [str(part.attrs.get("style", "")) for part in (table, *first)]
    return any(map(_BORDER.search, [*styles, *(table.attrs.get("class") or ())]))


def _in_a_cell(table: Tag) -> str:
    """Return a nested table as one line: cells separated by commas, rows by semicolons.

    Its caption comes first.
    """
    captions = [part.get_text(" ", strip=True) for part in parts_of(table, {"caption"})]
    rows = (
        ", ".join(cell.get_text(" ", strip=True) for cell in row.find_all(["td", "th"]))
        for row in parts_of(table, {"tr"}, deep=True)
    )
    return f" {': '.join([*captions, '; '.join(rows)])} "


def _leave_cells_alone(table: Tag) -> None:
    """Remove what stands between the cells; text moves before the table, as in browsers."""
    from bs4 import Tag
    from bs4.element import PreformattedString

    for part in parts_of(table, _AROUND_CELLS, deep=True):
        _put_in_its_place(part)
    for part in [table, *parts_of(table, _HOLDS.keys() - {"table"}, deep=True)]:
        for inner in part.contents[:]:
            if isinstance(inner, Tag) and inner.name in _HOLDS[part.name]:
                continue
            inner.extract()
            if not isinstance(inner, PreformattedString) and inner.get_text(strip=True):
                table.insert_before(inner, " ")
    for caption in parts_of(table, {"caption"}):
        table.insert(0, caption)


def _put_in_its_place(part: Tag) -> None:
    """Move a row or cell out of forms around it, and out of unclosed elements before it."""
    from bs4 import Tag

    while (around := part.parent) is not None and part.name not in _HOLDS.get(around.name, ()):
        if around.name not in _AROUND_CELLS:
            around.insert(0, " ")
            around.unwrap()
        elif part.name in CELLS and around.name not in ("tr", *CELLS):
            row = part.wrap(Tag(name="tr"))
            row.extend(takewhile(_is_no_row, list(row.next_siblings)))
        else:
            around.insert_after(part, *part.next_siblings)


def _is_no_row(beside: object) -> bool:
    return getattr(beside, "name", None) not in _HOLDS


def _rows(table: Tag) -> Iterator[Tag]:
    for part in parts_of(table, _HOLDS["table"]):
        if part.name == "tr":
            yield part
        elif part.name != "caption":
            yield from parts_of(part, {"tr"})


def _fill(rows: list[Tag]) -> None:
    """Add to every row the cells that span into it, and store the number of columns."""
    from bs4 import Tag

    lines: list[list[Tag | None]] = []
    for _, group in groupby(rows, key=lambda row: id(row.parent)):
        lines += _grid(list(group))
    for row, line in zip(rows, lines, strict=True):
        if not line:
            row.extract()
    rows = [row for row, line in zip(rows, lines, strict=True) if line]
    lines = [line for line in lines if line]
    if not lines:
        return
    width = max(map(len, lines))
    _join_names(rows, lines)
    lines[0] += [None] * (width - len(lines[0]))
    rows[0][COLUMNS] = str(width)
    left, placed = MOST_REPEATED, set[int]()
    for row, line in zip(rows, lines, strict=True):
        is_own = all(cell is not None and cell.parent is row for cell in line)
        if is_own and placed.isdisjoint(map(id, line)) and not _twice(line):
            placed.update(map(id, line))
            continue
        for own in parts_of(row, CELLS):
            own.extract()
        for cell in line:
            if cell is not None and id(cell) not in placed:
                placed.add(id(cell))
            elif cell is not None and left > 0:
                cell = copy.copy(cell)
                left -= len(cell.get_text()) + TAG * sum(1 for _ in cell.descendants)
            else:
                cell = Tag(name="td")
            row.append(cell)


def _join_names(rows: list[Tag], lines: list[list[Tag | None]]) -> None:
    """Merge several header rows into one."""
    count = _rows_of_names(rows, lines)
    names = lines[:count]
    if not 1 < count < len(rows) or _size(names) > MOST_REPEATED:
        return
    lines[:count] = [[_name(column) for column in zip_longest(*names)]]
    rows[0].clear()
    rows[0].extend(cell for cell in lines[0] if cell is not None)
    for row in rows[1:count]:
        row.extract()
    del rows[1:count]


def _rows_of_names(rows: list[Tag], lines: list[list[Tag | None]]) -> int:
    """Count the header rows: those in the table's head, else the first rows of header cells."""
    count = len(
        list(takewhile(lambda row: row.parent is not None and row.parent.name == "thead", rows))
    )
    if count:
        return count
    count = len(list(takewhile(_holds_names, rows)))
    while count > 1 and len(set(map(id, lines[count - 1]))) == 1:  # label of a group of rows
        count -= 1
    return count


def _holds_names(row: Tag) -> bool:
    cells = parts_of(row, CELLS)
    if len(cells) > 1 and cells[0].name == "td" and not cells[0].get_text(strip=True):
        del cells[0]  # the corner cell above the row headers
    return bool(cells) and all(
        cell.name == "th" and cell.get("scope") not in ("row", "rowgroup") for cell in cells
    )


def _size(lines: Sequence[Sequence[Tag | None]]) -> int:
    return sum(len(cell.get_text()) for line in lines for cell in line if cell is not None)


def _name(column: Sequence[Tag | None]) -> Tag:
    """Return the header cell of a column, with names from the outermost to the innermost."""
    from bs4 import Tag

    whole = Tag(name="th")
    names: dict[str, Tag] = {}
    for cell in column:
        if cell is not None and (text := cell.get_text(strip=True)):
            names.setdefault(text, cell)
    for cell in names.values():
        if whole.contents:
            whole.append(" / ")
        whole.extend(copy.copy(cell).contents[:])
    return whole


def _twice(line: list[Tag | None]) -> bool:
    return len(set(map(id, line))) < len(line)


def _grid(rows: list[Tag]) -> list[list[Tag | None]]:
    """Return for each row of a group the cell in every column, with spanning cells repeated."""
    return spread(
        [
            [
                Cell(
                    cell,
                    min(_span(cell, "colspan") or 1, WIDEST),
                    min(_span(cell, "rowspan") or len(rows), len(rows) - number),
                )
                for cell in parts_of(row, CELLS)
            ]
            for number, row in enumerate(rows)
        ]
    )


def _span(cell: Tag, attribute: str) -> int:
    """Return the number of rows or columns that a cell spans."""
    written = _DIGITS.match(str(cell.attrs.get(attribute, "")))
    return int(written[1]) if written else 1
