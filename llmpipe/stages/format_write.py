"""Write the parts of a training set, and the rows that were turned away."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from llmpipe.formats import read_example, write_example
from llmpipe.formats.bad_line import BadLine
from llmpipe.formats.example import NATURAL, UNCHANGED
from llmpipe.formats.provenance import PROVENANCE
from llmpipe.formats.records import encode, from_json
from llmpipe.stages.format_read import Format, SourceRows, rows_of
from llmpipe.stages.format_rows import Rejects, Rows


def write_part(path: Path, rows: Rows, positions: Sequence[int], to: Format) -> int:
    """Write rows in a format, and return how many there were."""
    convert = _converter(to)
    with path.open("wb") as file:
        for block in rows.texts(positions):
            if convert:
                block = b"".join(convert(line) + b"\n" for line in block.splitlines())
            file.write(block)
    return len(positions)


def repeated(rows: Rows, positions: Sequence[int], repeats: Sequence[int]) -> Sequence[int]:
    """Return the rows once, then those to be repeated again, and so on: copies are far apart."""
    most = max(repeats)
    if most == 1:
        return positions
    return array("Q", (i for t in range(most) for i in positions if repeats[rows.source[i]] > t))


def write_rejects(
    path: Path, rejects: Rejects, places: Sequence[str], sources: Sequence[SourceRows]
) -> None:
    """Write the rejected rows as in their sources, in order."""
    with path.open("wb") as file:
        for number, source in enumerate(sources):
            lines = {line for origin, line in rejects.reasons if origin == number}
            for line, row in _lines(source, lines) if lines else ():
                told = {"source": places[number], "line": line}
                reason = rejects.reasons[number, line]
                file.write(encode({**told, "reason": reason, "row": row}) + b"\n")


def _lines(source: SourceRows, wanted: set[int]) -> Iterator[tuple[int, Any]]:
    """Yield the lines that are wanted: as rows, or as their text where they are none."""
    bad: list[BadLine] = []
    for line, row in rows_of(source, bad.append):
        while bad:
            yield from _text(bad.pop(0), wanted)
        if line in wanted:
            yield line, row
    for last in bad:
        yield from _text(last, wanted)


def _text(bad: BadLine, wanted: set[int]) -> Iterator[tuple[int, str]]:
    if bad.line in wanted:
        yield bad.line, bad.text


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
