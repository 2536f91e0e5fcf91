"""The number of rows of a file, from its beginning: close where it is told, else not told."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from llmpipe.formats.row_count import BEGINNING, estimated_rows

ROW = {"q": "a ticket", "a": "an answer\nof two lines"}


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_small_files_are_counted(tmp_path: Path) -> None:
    """All of it is read: blank lines are no rows, and a row of a table may have several lines."""
    line = json.dumps(ROW).encode()
    table = b'q,a\n1,"two\nlines"\n2,one\n\n'
    cases = {
        "a.jsonl": (line + b"\n\n" + line, 2),
        "b.json": (line + b"\n" + line + b"\n", 2),
        "c.csv": (table, 2),
        "d.tsv": (b"\xef\xbb\xbfq\ta\r\n1\t2\r\n", 1),
        "e.jsonl": (b"", 0),
        "f.csv": (b"", 0),
    }
    for name, (data, count) in cases.items():
        assert estimated_rows(written(tmp_path / name, data)) == count, name


@pytest.mark.parametrize("length", [10, 300, 20_000])
def test_a_large_file_is_judged_by_its_beginning(tmp_path: Path, length: int) -> None:
    """Whatever the length of its rows."""
    line = json.dumps({"text": "x" * length}).encode() + b"\n"
    rows = 3 * BEGINNING // len(line)
    found = estimated_rows(written(tmp_path / "a.jsonl", line * rows))
    assert found == pytest.approx(rows, rel=0.03)


def test_parquet_states_it(tmp_path: Path) -> None:
    """In its metadata."""
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pyarrow.table({"q": ["same"] * 5_000}), tmp_path / "a.parquet")
    assert estimated_rows(tmp_path / "a.parquet") == 5_000


def test_what_does_not_tell_has_no_number(tmp_path: Path) -> None:
    """Documents, what is packed, in another encoding or damaged, folders and what is not there."""
    text = json.dumps(ROW)
    for name, data in {
        "list.json": f"[{text}]".encode(),
        "many.json": json.dumps(ROW, indent=1).encode(),
        "packed.jsonl": gzip.compress(text.encode()),
        "wide.jsonl": text.encode("utf-16"),
        "broken.parquet": b"PAR1",
        "rows.arrow": b"ARROW1",
    }.items():
        assert estimated_rows(written(tmp_path / name, data)) is None, name
    assert estimated_rows(tmp_path) is None
    assert estimated_rows(tmp_path / "nothing.jsonl") is None


def test_a_cell_beyond_the_limit_of_csv_has_no_number(tmp_path: Path) -> None:
    """The limit is the process's, and who reads tables raises it."""
    table = written(tmp_path / "long.csv", b"q\n" + b"x" * 200_000)
    before = csv.field_size_limit(131_072)
    try:
        assert estimated_rows(table) is None
        csv.field_size_limit(1_000_000)
        assert estimated_rows(table) == 1
    finally:
        csv.field_size_limit(before)
