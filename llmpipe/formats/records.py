"""Read and write files of rows: JSON, tables, Parquet and Arrow in, JSONL out.

A row is any JSON object; what its columns mean is the business of the other modules here. Files
are read row by row, except JSON documents, which are held whole. Not covered: remote files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmpipe.errors import StageError
from llmpipe.formats.bad_line import OnBad, refuse
from llmpipe.formats.columnar import ENDINGS, read_columnar
from llmpipe.formats.json_rows import is_document, read_document, read_lines
from llmpipe.formats.opening import UNPACKING, Row, first_byte, opening_of, suffix_of
from llmpipe.formats.tables import read_table

__all__ = [
    "Row",
    "WrittenFloat",
    "encode",
    "from_json",
    "read_rows",
    "row_digest",
    "to_json",
    "write_rows",
]


class WrittenFloat(float):
    """A fraction that keeps its text: ``1.10`` as an answer is not ``1.1``."""

    __slots__ = ("_text",)
    _text: str

    def __new__(cls, text: str) -> WrittenFloat:
        """Read the text of a JSON number."""
        number = super().__new__(cls, text)
        number._text = text
        return number

    def __str__(self) -> str:
        return self._text


def to_json(value: Any) -> str:
    """Return a value as JSON text, a `WrittenFloat` as it was written."""
    return encode(value).decode("utf-8")


def encode(value: Any) -> bytes:
    """Return a value as JSON in UTF-8, a `WrittenFloat` as it was written."""
    return _ENCODE(value)


def from_json(text: bytes) -> Any:
    """Return the value of JSON text that `to_json` wrote, each fraction a `WrittenFloat`."""
    return _WRITTEN.decode(text)


_ENCODE = msgspec.json.Encoder(enc_hook=lambda number: msgspec.Raw(str(number).encode())).encode
_WRITTEN = msgspec.json.Decoder(float_hook=WrittenFloat)


def read_rows(
    path: Path,
    label: str,
    *,
    floats: Callable[[str], float] | None = None,
    decode: Callable[[bytes], str] | None = None,
    bad: OnBad = refuse,
) -> Iterator[tuple[int, Row]]:
    """Yield every row of a file with the number of its line, from 1; blank lines are passed over.

    The ending says what the file is: ``.csv`` and ``.tsv`` a table, ``.parquet``, ``.arrow`` and
    ``.feather`` what their names say, ``.jsonl`` and ``.ndjson`` one object a line. Any other file
    is a JSON document when it begins with ``[``, or with an object over several lines, and JSONL
    otherwise. Rows of documents and of Parquet are counted instead of lines. Text is UTF-8, or what
    its byte order mark says; gzip is unpacked.

    Args:
        path: the file.
        label: what messages call it.
        floats: makes a number of its JSON text (`WrittenFloat` keeps that text).
        decode: reads the bytes of a table that is not UTF-8.
        bad: called for lines that are not rows. Without it the first one is an error.

    Raises:
        StageError: the file is missing, unreadable or not UTF-8, or a line is not a row.
    """
    ending = suffix_of(path)
    try:
        if ending in ENDINGS:
            yield from read_columnar(path, label)
            return
        opening = opening_of(path, label, decode if ending in (".csv", ".tsv") else None)
        if ending in (".csv", ".tsv"):
            yield from read_table(opening, label, is_tsv=ending == ".tsv", bad=bad)
        elif ending not in (".jsonl", ".ndjson") and (
            (start := first_byte(opening)) == b"[" or (start == b"{" and is_document(opening))
        ):
            yield from read_document(opening, label, floats, bad)
        else:
            yield from read_lines(opening, label, floats, bad)
    except FileNotFoundError:
        raise StageError(f"{label}: no such file", hint="check the path in the spec") from None
    except IsADirectoryError:
        raise StageError(
            f"{label}: is a folder; rows come from one file: JSONL, JSON, CSV, Parquet or Arrow",
            hint="name a file inside it",
        ) from None
    except UNPACKING as error:
        raise StageError(f"{label}: damaged: {error}", hint="unpack it with gzip to see") from None
    except OSError as error:
        raise StageError(f"{label}: cannot be read: {error.strerror or error}") from None


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as JSONL (UTF-8, LF, keys in the order given) and return how many there were."""
    encoder = msgspec.json.Encoder()
    count = 0
    with path.open("wb") as file:
        for row in rows:
            file.write(encoder.encode(row) + b"\n")
            count += 1
    return count


def row_digest(row: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of a row's canonical JSON: sorted keys, no spaces, UTF-8.

    `generate` orders its seeds and draws by it.
    """
    text = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
