"""Write rows as Parquet with the column types of their JSON values.

The ``datasets`` library guesses types when it reads JSON: texts that all look like dates become
timestamps, ``1`` among fractions becomes ``1.0``, and a column that first appears after 10 MiB is
an error. A Parquet file states its types, so nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmpipe.errors import MissingDependencyError, StageError

BATCH_ROWS = 1_000
BATCH_BYTES = 64 << 20
"""A batch of rows ends at either limit, because Arrow allows at most 2 GiB of text in one."""

NAMES: Mapping[Any, str] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a fraction",
    list: "a list",
    dict: "an object",
}

Shape = Any
"""The type of a column: None (not known yet), a Python type, ``[shape]`` of a list's items, or
``{key: shape}`` of an object's values."""


def write_texts(
    path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str | None]]
) -> int:
    """Write rows whose columns all contain text or null, and return the number of rows."""
    return write_shaped(path, dict.fromkeys(columns, str), rows)


def write_shaped(
    path: Path, shape: Mapping[str, Shape], rows: Iterable[Mapping[str, Any]], label: str = "rows"
) -> int:
    """Write rows of a known shape (see `joined`) and return the number of rows.

    Raises:
        StageError: A column contains only empty objects; ``label`` names the rows.
    """
    pa, pq = _arrow()
    schema = pa.schema(
        [(name, _arrow_type(pa, part, f"{label}: column {name!r}")) for name, part in shape.items()]
    )
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for batch in _batches(rows):
            arrays = [
                pa.array([row.get(field.name) for row in batch], type=field.type)
                for field in schema
            ]
            writer.write_table(pa.table(arrays, schema=schema), row_group_size=len(batch))
            count += len(batch)
    return count


def joined(shape: Shape, value: Any, place: str) -> Shape:
    """Return the shape of a column with a shape so far and one more value.

    Args:
        shape: The shape of the earlier values.
        value: The value.
        place: The position of the value, for errors.

    Raises:
        StageError: No type can hold both the earlier values and this one as written.
    """
    if value is None:
        return shape
    if isinstance(value, list):
        items = _same_kind(shape, list, place)
        inner = items[0] if items else None
        for item in value:
            inner = joined(inner, item, place)
        return [inner]
    if isinstance(value, Mapping):
        fields = dict(_same_kind(shape, dict, place) or {})
        for key, item in value.items():
            fields[key] = joined(fields.get(key), item, f"{place}.{key}")
        return fields
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise StageError(f"{place}: {value} does not fit into 64 bits", hint="write it as text")
    kind = next(kind for kind in (bool, int, float, str) if isinstance(value, kind))
    return _same_kind(shape, kind, place) or kind


def lacks_key(shape: Shape, value: Any) -> bool:
    """Return whether an object in a value lacks a key of ``shape``; Parquet stores it as null."""
    if isinstance(value, list):
        return any(lacks_key(shape[0], item) for item in value)
    if isinstance(value, Mapping):
        return any(key not in value or lacks_key(shape[key], value[key]) for key in shape)
    return False


def _same_kind(shape: Shape, kind: type, place: str) -> Shape:
    held = type(shape) if isinstance(shape, list | dict) else shape
    if held not in (None, kind):
        raise StageError(
            f"{place} holds {NAMES[kind]}, but {NAMES[held]} in a row above",
            hint="one column must hold one kind of value in all rows",
        )
    return shape


def _batches(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    batch: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(len(value) for value in row.values() if isinstance(value, str))
        if len(batch) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _arrow_type(pa: Any, shape: Shape, place: str) -> Any:
    if isinstance(shape, list):
        return pa.list_(_arrow_type(pa, shape[0], place))
    if isinstance(shape, Mapping):
        if not shape:
            raise StageError(
                f"{place} holds only empty objects, which Parquet cannot store",
                hint="leave it out",
            )
        return pa.struct(
            [(key, _arrow_type(pa, part, f"{place}.{key}")) for key, part in shape.items()]
        )
    types = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    return types.get(shape, pa.string())  # a column of nulls may be any type


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingDependencyError(
            "writing training rows needs pyarrow, which is not installed",
            hint='pip install "llmpipe[train]"',
        ) from None
    return pa, pq
