"""Read rows from Parquet and Arrow files, as JSON values.

In a column of objects each row has the keys of all rows, null if it lacks one: such nulls are left
out. NaN, which data frames write for null, becomes null. Times become ISO text, bytes the text that
they are or else base64, and other values what Python writes. In a column of narrow floats, 0.1 is
read as 0.1 and not as 0.10000000149011612, its nearest float of 32 bits.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmpipe.errors import MissingDependencyError, StageError
from llmpipe.formats.opening import Row

ENDINGS = (".parquet", ".arrow", ".feather")

_PLAIN = frozenset({str, bool, int, float, type(None)})

NARROW = {"halffloat": "e", "float": "f"}
"""Arrow's names of floats below 64 bits, and their format in `struct`."""

BATCH = 1_000
"""Rows that are held at a time."""


def read_columnar(path: Path, label: str) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a file, counted from 1.

    Raises:
        StageError: the file is damaged, or of another kind than its name says.
        MissingDependencyError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise MissingDependencyError(
            f"{label}: Parquet and Arrow files need pyarrow, which is not installed",
            hint='pip install "llmpipe[train]"',
        ) from None
    number = 0
    try:
        for batch in _batches(pa, path):
            narrow = {
                field.name: NARROW[width]
                for field in batch.schema
                if (width := str(field.type)) in NARROW
            }
            for row in batch.to_pylist():
                number += 1
                for name, width in narrow.items():
                    row[name] = _shortest(row[name], width)
                yield number, {name: _plain(value) for name, value in row.items()}
    except pa.ArrowInvalid as error:
        raise StageError(f"{label}: cannot be read: {str(error).splitlines()[0]}") from None


def _batches(pa: Any, path: Path) -> Iterator[Any]:
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=BATCH)
        return
    with path.open("rb") as start:
        is_file = start.read(6) == b"ARROW1"
    with pa.memory_map(str(path)) as source:
        if is_file:
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            batches = iter(pa.ipc.open_stream(source))
        for batch in batches:
            for start_row in range(0, batch.num_rows, BATCH):
                yield batch.slice(start_row, BATCH)


def _shortest(value: float | None, width: str) -> float | None:
    """Return the number with the fewest digits that a narrow float can stand for."""
    if value is None or not math.isfinite(value) or value.is_integer():
        return value
    own = struct.pack(width, value)
    texts = (float(f"{value:.{digits}g}") for digits in range(1, 10))
    return next((number for number in texts if _packed(number, width) == own), value)


def _packed(number: float, width: str) -> bytes | None:
    try:
        return struct.pack(width, number)
    except OverflowError:  # rounded up, beyond the largest
        return None


def _plain(value: Any) -> Any:
    if type(value) in _PLAIN:
        return None if value != value else value
    if isinstance(value, dict):
        items = ((key, item if type(item) is str else _plain(item)) for key, item in value.items())
        return {key: item for key, item in items if item is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return _text_of(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _text_of(value: bytes) -> str:
    """Return bytes as the text that they are, which some writers do not declare, or as base64."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    return base64.b64encode(value).decode("ascii") if "\0" in text else text
