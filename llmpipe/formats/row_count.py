"""Estimate the number of rows of a file without reading all of it."""

from __future__ import annotations

import codecs
import csv
import io
from pathlib import Path

from llmpipe.formats.columnar import ENDINGS
from llmpipe.formats.json_rows import is_document
from llmpipe.formats.opening import BOM, GZIP, WIDE, suffix_of

BEGINNING = 1_000_000
"""How many bytes of a file are read."""

_UNREADABLE = (GZIP, *(mark for mark, _ in WIDE))
"""How files begin whose bytes are not those of their rows."""


def estimated_rows(path: Path) -> int | None:
    """Return about how many rows a file has, by its first megabyte; None if that does not tell.

    Parquet states the number. Not told: Arrow, JSON documents, and what is packed.

    Args:
        path: The file.
    """
    try:
        if suffix_of(path) == ".parquet":
            return _in_parquet(path)
        if not path.is_file():
            return None
        with path.open("rb") as file:
            start = file.read(BEGINNING)
        size = path.stat().st_size
    except (OSError, ValueError, ImportError):
        return None
    if suffix_of(path) in ENDINGS or start.startswith(_UNREADABLE):
        return None
    count = _counted(start, suffix_of(path))
    return None if count is None else -(-count * size // max(len(start), 1))


def _in_parquet(path: Path) -> int:
    from pyarrow.parquet import read_metadata

    return int(read_metadata(path).num_rows)


def _counted(start: bytes, ending: str) -> int | None:
    """Return how many rows begin in the beginning of a file."""
    if ending in (".csv", ".tsv"):
        text = codecs.decode(start, "utf-8-sig", "replace")
        dialect = "excel-tab" if ending == ".tsv" else "excel"
        try:  # a row of a table can have several lines
            rows = sum(map(bool, csv.reader(io.StringIO(text, newline=""), dialect)))
        except csv.Error:
            return None
        return max(0, rows - 1)
    if ending not in (".jsonl", ".ndjson"):
        first = start.removeprefix(BOM).lstrip()[:1]
        if first == b"[" or (first == b"{" and is_document(lambda: io.BytesIO(start))):
            return None
    return sum(1 for line in start.split(b"\n") if line.strip())
