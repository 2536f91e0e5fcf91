"""Values of Parquet and Arrow columns as JSON: what data frames write there for null and numbers."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmpipe.formats.records import read_rows

NAN = float("nan")


def read(path: Path, **columns: object) -> list[dict[str, object]]:
    """Write columns as Parquet and return the rows as they are read."""
    pq.write_table(pa.table(columns), path / "a.parquet")
    return [row for _, row in read_rows(path / "a.parquet", "a.parquet")]


def test_nan_is_null(tmp_path: Path) -> None:
    """A data frame's NaN is not the text "nan", nor a value inside an object or a list."""
    assert read(tmp_path, a=[NAN, 0.5], b=[{"x": NAN, "y": 1.0}] * 2, c=[[NAN, 2.0]] * 2) == [
        {"a": None, "b": {"y": 1.0}, "c": [None, 2.0]},
        {"a": 0.5, "b": {"y": 1.0}, "c": [None, 2.0]},
    ]


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_a_narrow_number_is_read_as_written(tmp_path: Path, kind: str) -> None:
    """0.1 of 16 or 32 bits is 0.1, and not the digits of its nearest float."""
    numbers = [0.1, 1.0, -2.5, 1e-3, 65504.0, None, 0.0]
    if kind != "float16":
        numbers.append(1000.00006)  # nine digits, the most that a float of 32 bits needs
    rows = read(tmp_path, a=pa.array(numbers, getattr(pa, kind)()))
    assert [row["a"] for row in rows] == numbers


def test_infinity_of_narrow_columns_is_kept(tmp_path: Path) -> None:
    """What has no digits is passed on."""
    rows = read(tmp_path, a=pa.array([float("inf"), NAN, 0.1], pa.float32()))
    assert [row["a"] for row in rows] == [float("inf"), None, 0.1]


def test_bytes_that_are_text_are_read_as_text(tmp_path: Path) -> None:
    """Spark and others write texts as bytes without a type; an image stays base64."""
    rows = read(tmp_path, a=[b"caf\xc3\xa9", b"", b"\x89PNG\xff", b"PK\0\0"])
    assert [row["a"] for row in rows] == ["café", "", "iVBOR/8=", "UEsAAA=="]
