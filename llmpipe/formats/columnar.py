"""Read rows from Parquet and Arrow files, as JSON values.

In a column of objects each row has the keys of all rows, null if it lacks one: such nulls are left
out. Times become ISO text, bytes base64, and other values what Python writes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmpipe.errors import MissingDependencyError, StageError
from llmpipe.formats.opening import Row

ENDINGS = (".parquet", ".arrow", ".feather")

_PLAIN = frozenset({str, bool, int, float, type(None)})

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
            for row in batch.to_pylist():
                number += 1
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


def _plain(value: Any) -> Any:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, dict):
        return {
            key: item if type(item) is str else _plain(item)
            for key, item in value.items()
            if item is not None
        }
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
