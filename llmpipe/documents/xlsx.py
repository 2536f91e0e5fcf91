"""Convert Excel: each sheet is a section, and each block of cells a table, as displayed.

Hidden sheets, rows and columns are left out and reported; merged cells are repeated. A formula that
was never calculated is kept as its text. Not covered: charts and cell comments.
"""

from __future__ import annotations

import datetime
import io
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llmpipe.documents import archive, markdown, notation, xlsx_numbers
from llmpipe.documents.parts import Converted, one_line
from llmpipe.documents.tables import table
from llmpipe.errors import StageError

Place = tuple[int, int]
"""The row and column of a cell, from 1."""

UNCALCULATED = re.compile(
    rb"<c\b[^>]*>\s*<f\b[^>]*(?:/>|>[^<]*</f>)\s*(?:<v\s*/>|<v>\s*</v>)?\s*</c>"
)
"""A cell with a formula but no value."""


def convert(data: bytes, label: str) -> Converted:
    """Convert a workbook.

    Raises:
        StageError: it is not a workbook, is encrypted, or is too large when unpacked.
    """
    if data.startswith(archive.OLE):
        raise StageError(
            f"{label} is encrypted or in Excel's old format",
            hint="save it as .xlsx without a password",
        )
    import openpyxl

    try:
        parts = archive.unpacked(data, label)
        pending = sum(
            len(UNCALCULATED.findall(xml)) for name, xml in parts.items() if "worksheets/" in name
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what the library would not write back
            checked = _packed(parts, data)
            book = openpyxl.load_workbook(checked, data_only=True, rich_text=True)
            formulas = openpyxl.load_workbook(checked) if pending else None
        return _converted(book, formulas, pending)
    except StageError:
        raise
    except Exception as error:  # the libraries raise anything for a broken archive
        raise StageError(f"{label} is not a workbook that can be read: {error}") from None


def _packed(parts: Mapping[str, bytes], data: bytes) -> io.BytesIO:
    """Return a workbook's archive with the checked parts; all others are empty."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(packed, "w") as checked:
        for name in dict.fromkeys(archive.namelist()):
            checked.writestr(name, parts.get(name, b""))
    return packed


def _converted(book: Any, formulas: Any, pending: int) -> Converted:
    left_out: Counter[str] = Counter()
    texts: list[str] = []
    for sheet in book.worksheets:
        if sheet.sheet_state != "visible":
            left_out["hidden sheet"] += 1
            continue
        other = formulas[sheet.title] if formulas is not None else None
        blocks = [table(block) for block in _blocks(list(_rows(sheet, other, left_out)))]
        if blocks:
            texts.append("\n\n".join([f"## {one_line(sheet.title)}", *blocks]))
    found = markdown.sectioned("\n\n".join(texts) + "\n" if texts else "")
    named = ", ".join(f"{name} ({count})" for name, count in sorted(left_out.items()))
    remarks = [f"not read: {named}"] if named else []
    if pending:
        remarks.append(f"{pending} formulas were never calculated: their text is kept instead")
    title = one_line(book.properties.title or "")
    author = one_line(book.properties.creator or "")
    metadata = {"author": author} if author and author != "openpyxl" else {}
    return Converted(found.text, found.sections, title, metadata=metadata, remarks=tuple(remarks))


def _rows(sheet: Any, formulas: Any, left_out: Counter[str]) -> Iterator[list[str]]:
    """Yield the visible rows of a sheet, with the texts of their cells."""
    from openpyxl.utils import get_column_letter

    merged = {
        place: (area.min_row, area.min_col)
        for area in sheet.merged_cells.ranges
        if area.size["rows"] * area.size["columns"] <= archive.MOST_PARTS
        for row in area.rows
        for place in row
    }
    hidden = {
        at
        for at in range(1, sheet.max_column + 1)
        if _is_hidden(sheet.column_dimensions, get_column_letter(at))
    }
    for dimension in sheet.column_dimensions.values():
        if dimension.hidden and dimension.min and dimension.max:
            hidden |= set(range(dimension.min, min(dimension.max, sheet.max_column) + 1))
    left_out["hidden column"] += len(hidden)
    used = {row for row, _ in sheet._cells}
    columns = [
        at
        for at in range(1, _width(filter(None, (sheet, formulas)), merged) + 1)
        if at not in hidden
    ]
    blank: list[str] = []
    for number in range(1, sheet.max_row + 1):
        if number in sheet.row_dimensions and sheet.row_dimensions[number].hidden:
            left_out["hidden row"] += 1
            continue
        if number not in used:
            yield blank
            continue
        cells = []
        for at in columns:
            shown = sheet.cell(*merged.get((number, at), (number, at)))
            text = _shown(shown)
            if not text and formulas is not None:
                formula = formulas.cell(shown.row, shown.column).value
                text = str(getattr(formula, "text", formula) or "")
            cells.append(text)
        yield cells
    for name in [name for name, count in left_out.items() if not count]:
        del left_out[name]


def _width(sheets: Iterable[Any], merged: Mapping[Place, Place]) -> int:
    """Return the last column with text: many sheets have formatted cells far beyond."""
    filled = {
        place for sheet in sheets for place, cell in sheet._cells.items() if cell.value is not None
    }
    filled |= {place for place, first in merged.items() if first in filled}
    return max((column for _, column in filled), default=0)


def _is_hidden(dimensions: Any, letter: str) -> bool:
    return letter in dimensions and bool(dimensions[letter].hidden)


def _shown(cell: Any) -> str:
    """Return the text of a cell, almost as its format displays it."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, str | list):
        return _in_line(value) if isinstance(value, list) else value
    format_ = cell.number_format or "General"
    if isinstance(value, int | float):
        return xlsx_numbers.number(value, format_)
    if isinstance(value, datetime.datetime | datetime.time):
        return xlsx_numbers.moment(value, format_)
    if isinstance(value, datetime.timedelta):
        return xlsx_numbers.duration(value, format_)
    return str(value)


def _in_line(parts: list[Any]) -> str:
    """Return the text of a cell with several formats, including scripts."""
    runs = [(str(part), getattr(getattr(part, "font", None), "vertAlign", "")) for part in parts]
    text = ""
    for at, (run, place) in enumerate(runs):
        after = "".join(other for other, _ in runs[at + 1 :])
        if place == "superscript":
            text += notation.raised(text, run, after)
        elif place == "subscript":
            text += notation.lowered(text, run, after)
        else:
            text += run
    return text


def _blocks(rows: list[list[str]]) -> Iterator[list[list[str]]]:
    """Yield the blocks of rows between empty ones, without empty columns around them."""
    block: list[list[str]] = []
    for row in [*rows, []]:
        if any(text.strip() for text in row):
            block.append(row)
        elif block:
            yield _trimmed(block)
            block = []


def _trimmed(block: list[list[str]]) -> list[list[str]]:
    width = max(map(len, block))
    used = [at for at in range(width) if any(at < len(row) and row[at].strip() for row in block)]
    return [row[used[0] : used[-1] + 1] for row in block]
