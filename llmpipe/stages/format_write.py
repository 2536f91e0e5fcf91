"""Write the parts of a training set, and the rows that were turned away."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from llmpipe.formats import read_example, write_example
from llmpipe.formats.bad_line import BadLine
from llmpipe.formats.example import NATURAL, UNCHANGED
from llmpipe.formats.provenance import PROVENANCE
from llmpipe.formats.records import encode, from_json
from llmpipe.stages.format_columns import split_block
from llmpipe.stages.format_read import Format, SourceRows, rows_of
from llmpipe.stages.format_rows import Rejects, Rows


def write_part(
    path: Path, rows: Rows, chosen: bytes, to: Format, repeats: Sequence[int] = (1,)
) -> int:
    """Write rows in a format, and return how many lines there are.

    Args:
        path: the file.
        rows: all rows.
        chosen: for each row, 1 if it is to be written, and otherwise 0.
        to: the format.
        repeats: how often the rows of each source are written: all once, then those to be repeated
            again, and so on, so that copies are far apart.
    """
    convert, written = _converter(to), 0
    with path.open("wb") as file:
        for time in range(max(repeats)):
            again = bytearray(chosen)
            for source, times in enumerate(repeats):
                if times <= time:
                    there = rows.positions_of(source)
                    again[there.start : there.stop] = bytes(len(there))
            written += again.count(1)
            for text in rows.texts(again):
                if convert is None:
                    file.write(text)
                else:
                    file.write(b"\n".join([*map(convert, split_block(bytes(text))), b""]))
    return written


def write_rejects(
    path: Path, rejects: Rejects, places: Sequence[str], sources: Sequence[SourceRows]
) -> None:
    """Write the rejected rows as in their sources, in order."""
    with path.open("wb") as file:
        for number, source in enumerate(sources):
            for line, row in _lines(source) if rejects.of(number) else ():
                reason = rejects.reason(number, line)
                if reason:
                    told = {"source": places[number], "line": line, "reason": reason}
                    file.write(encode({**told, "row": row}) + b"\n")


def _lines(source: SourceRows) -> Iterator[tuple[int, Any]]:
    """Yield all lines: as rows, or as their text where they are none."""
    bad: list[BadLine] = []
    for line, row in rows_of(source, bad.append):
        for earlier in bad:
            yield earlier.line, earlier.text
        bad.clear()
        yield line, row
    for last in bad:
        yield last.line, last.text


def _converter(to: Format) -> Callable[[bytes], bytes] | None:
    """Return what makes a row of the format of its text; None where it is in that format.

    Raw text is converted, too: it may lie there as a conversation.
    """
    if to == UNCHANGED or (to in NATURAL.values() and to != "completion"):
        return None
    named = to

    def convert(text: bytes) -> bytes:
        row = from_json(text)
        written = write_example(read_example(row).example, named).row
        return encode({**written, PROVENANCE: row[PROVENANCE]})

    return convert
