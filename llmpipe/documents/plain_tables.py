"""Convert tables drawn with characters, as in database output or reStructuredText, to Markdown.

Only complete drawings with a line below the column names are converted: every bar must be in its
place, and no cell may span others. Other text is unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

from llmpipe.documents.tables import table

_DRAWN = str.maketrans("┌┬┐├┼┤└┴┘╔╦╗╠╬╣╚╩╝╞╪╡╒╤╕╘╧╛┏┳┓┡╇┩━─═│┃║", "+" * 33 + "--=|||")
_CORNERS = ("-+", "=+", "─┐", "─┤", "═╗", "═╣", "═╕", "═╡", "━┓", "━┩")
"""What ends a border, or a rule below the column names."""
_BORDER = re.compile(r"\+(?:[-=]+\+)+")
_RULE = re.compile(r"[ \t]*\|?-+(?:\+-+)+\|?[ \t]*")


def as_markdown(text: str) -> str:
    """Return a text with drawn tables converted to Markdown tables."""
    if not any(corner in text for corner in _CORNERS):
        return text
    written: list[str] = []
    for is_drawn, group in groupby(text.split("\n"), key=_is_drawn):
        lines = list(group)
        written += (is_drawn and _grid(lines)) or _ruled(lines)
    return "\n".join(written)


def _is_drawn(line: str) -> bool:
    """Return whether a line may belong to a table with borders."""
    inner = line.strip().translate(_DRAWN)
    return len(inner) > 1 and inner[0] in "+|" and inner[-1] in "+|"


def _ruled(lines: list[str]) -> list[str]:
    """Return lines in which the rule below the column names has bars, as in Markdown."""
    return [
        line.replace("+", "|")
        if _RULE.fullmatch(line) and above.count("|") == line.count("+") + line.count("|")
        else line
        for above, line in zip(["", *lines], lines, strict=False)
    ]


def _grid(lines: Sequence[str]) -> list[str] | None:
    """Return a table with borders as Markdown, or None if it is not a table."""
    lines = [line.strip() for line in lines]
    drawn = [line.translate(_DRAWN) for line in lines]
    borders = [line for line in drawn if _BORDER.fullmatch(line)]
    if len(borders) < 3 or drawn[0] not in borders or drawn[-1] not in borders:
        return None
    bars = [at for at, mark in enumerate(drawn[0]) if mark == "+"]
    if any(
        len(line) != len(drawn[0]) or any(line[at] not in "+|" for at in bars) for line in drawn
    ):
        return None
    names, *groups = [*_rows(lines, drawn, bars)] or [[]]
    has_names = len(borders) == 3 or "=" in borders[1]
    if not groups or not has_names or not any(map(str.isalnum, "".join(map("".join, names)))):
        return None
    if len(groups) > 1:  # lines between all rows: each row may have several lines of text
        rows = [_joined(group) for group in groups]
    elif "=" in borders[1]:
        rows = [_joined(row) for row in _continued(groups[0])]
    else:
        rows = groups[0]
    return table([_joined(names), *rows]).split("\n")


def _rows(lines: Sequence[str], drawn: Sequence[str], bars: list[int]) -> Iterator[list[list[str]]]:
    """Yield the cells of each line, in groups between borders."""
    pairs = zip(lines, drawn, strict=True)
    for is_border, group in groupby(pairs, key=lambda pair: _BORDER.fullmatch(pair[1]) is not None):
        if not is_border:
            yield [[line[left + 1 : right] for left, right in pairwise(bars)] for line, _ in group]


def _continued(lines: list[list[str]]) -> list[list[list[str]]]:
    """Return the lines of each row; a line with an empty first cell continues the row above."""
    rows: list[list[list[str]]] = []
    for line in lines:
        if rows and not line[0].strip():
            rows[-1].append(line)
        else:
            rows.append([line])
    return rows


def _joined(lines: list[list[str]]) -> list[str]:
    return [" ".join(cell.strip() for cell in column) for column in zip(*lines, strict=True)]
