"""Read and write files of rows: JSONL, JSON arrays and CSV in, JSONL out.

A row is any JSON object; what its columns mean is the business of the other modules here. Files
are read row by row (a JSON array is the exception: it is held whole). Not covered: compressed
files, Parquet, remote files.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import msgspec

from llmpipe.errors import StageError

Row = dict[str, Any]

BOM = b"\xef\xbb\xbf"

WIDE = (
    (codecs.BOM_UTF32_LE, "UTF-32"),  # begins as that of UTF-16 does: it must come first
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
"""The byte order marks of other encodings than UTF-8."""

SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
"""What may separate the columns of a table, and what messages call it."""

_DECLARED = re.compile(rb"(?i)(?:\xef\xbb\xbf)?(\"?)sep=([\t !#-&(-/:-@\[-`{-~])\1[ \t,;]*\r?\n")
"""A first line by which spreadsheets say what separates the columns."""

Opening = Callable[[], BinaryIO]
"""Opens the bytes of a file, in UTF-8."""


class WrittenFloat(float):
    """A fraction that remembers its text: ``1.10`` is not ``1.1`` where it is somebody's answer."""

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
    encoded = msgspec.json.encode(value, enc_hook=lambda number: msgspec.Raw(str(number).encode()))
    return encoded.decode("utf-8")


def from_json(text: bytes) -> Any:
    """Return the value of JSON text that `to_json` wrote, each fraction a `WrittenFloat`."""
    return _WRITTEN.decode(text)


_WRITTEN = msgspec.json.Decoder(float_hook=WrittenFloat)


def read_rows(
    path: Path,
    label: str,
    *,
    floats: Callable[[str], float] | None = None,
    decode: Callable[[bytes], str] | None = None,
) -> Iterator[tuple[int, Row]]:
    """Yield every row of a file with the number of its line, from 1; blank lines are passed over.

    ``label`` is what messages call the file. ``.csv`` and ``.tsv`` files are tables whose first
    line names the columns, with tabs between them in a ``.tsv`` file; any other file is a JSON
    array when it begins with ``[`` (rows are then counted instead of lines) and JSONL otherwise;
    ``.jsonl`` is always JSONL. A line ``sep=;`` above a table says what separates its columns.
    Text is UTF-8, or what its byte order mark says. ``floats`` makes a number of its JSON text
    (`WrittenFloat` keeps that text); ``decode`` reads the bytes of a table that is not UTF-8.

    Raises:
        StageError: the file is missing, unreadable or not UTF-8, or a row is not a JSON object.
    """
    is_table = path.suffix.lower() in (".csv", ".tsv")
    try:
        opening = _opening(path, label, decode if is_table else None)
        if is_table:
            yield from _read_csv(opening, label, is_tsv=path.suffix.lower() == ".tsv")
        elif path.suffix.lower() not in (".jsonl", ".ndjson") and _first_byte(opening) == b"[":
            yield from _read_json(opening, label, floats)
        else:
            yield from _read_jsonl(opening, label, floats)
    except FileNotFoundError:
        raise StageError(f"{label}: no such file", hint="check the path in the spec") from None
    except IsADirectoryError:
        raise StageError(
            f"{label}: is a folder; rows come from one JSONL, JSON or CSV file",
            hint="name a file inside it",
        ) from None
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
    """Give the SHA-256 (hex) of a row's canonical JSON: sorted keys, no spaces, UTF-8.

    It names a source row in the ``provenance`` of the rows generated from it.
    """
    text = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _opening(path: Path, label: str, decode: Callable[[bytes], str] | None) -> Opening:
    """Tell how to open a file so that it is UTF-8: as it is, or read by its mark or a guess."""
    with path.open("rb") as file:
        start = file.read(4)
    wide = next((name for mark, name in WIDE if start.startswith(mark)), None)
    if wide is not None:
        try:
            return partial(io.BytesIO, path.read_bytes().decode(wide).encode())
        except UnicodeError as error:
            raise StageError(
                f"{label}: not {wide}, as its first bytes say: {error}",
                hint="save it as UTF-8",
            ) from None
    data = path.read_bytes() if decode is not None else b""
    if decode is not None and not _is_utf8(data):
        return partial(io.BytesIO, decode(data).encode("utf-8", "replace"))
    return lambda: path.open("rb")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


def _first_byte(opening: Opening) -> bytes:
    with opening() as file:
        return file.read(4096).removeprefix(BOM).lstrip()[:1]


def _read_jsonl(
    opening: Opening, label: str, floats: Callable[[str], float] | None
) -> Iterator[tuple[int, Row]]:
    decoder = msgspec.json.Decoder(float_hook=floats)
    with opening() as file:
        for number, raw in enumerate(file, 1):
            line = (raw.removeprefix(BOM) if number == 1 else raw).strip()
            if line:
                yield number, _object(_decode(decoder, line, label, number), label, number)


def _read_json(
    opening: Opening, label: str, floats: Callable[[str], float] | None
) -> Iterator[tuple[int, Row]]:
    with opening() as file:
        content = file.read().removeprefix(BOM)
    decoder = msgspec.json.Decoder(float_hook=floats)
    for number, row in enumerate(_decode(decoder, content, label, None), 1):
        yield number, _object(row, label, number)


def _decode(decoder: msgspec.json.Decoder[Any], raw: bytes, label: str, line: int | None) -> Any:
    """Decode one JSON value; ``line`` is None when ``raw`` is the whole file."""
    try:
        return decoder.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        number = line or raw.count(b"\n", 0, error.start) + 1
        raise _not_utf8(label, number) from None
    except (msgspec.DecodeError, RecursionError) as error:
        place = f"{label}:{line}" if line else label
        raise StageError(
            f"{place}: not JSON: {error}",
            hint=f"the text is {_excerpt(raw)}" if line else "the file must be an array of objects",
        ) from None


def _object(row: Any, label: str, number: int) -> Row:
    if isinstance(row, dict):
        return row
    kind = {list: "an array", str: "a string", type(None): "null"}.get(type(row), "a number")
    if isinstance(row, bool):
        kind = "true or false"
    raise StageError(
        f'{label}:{number}: a row must be a JSON object such as {{"text": "…"}}, not {kind}'
    )


def _read_csv(opening: Opening, label: str, *, is_tsv: bool) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(sys.maxsize)  # the default of 128 KiB is shorter than some documents
    with opening() as file:
        declared = _DECLARED.match(file.readline(16))
    above = 1 if declared else 0
    separator = declared[2].decode() if declared else "\t" if is_tsv else _separator(opening)
    with _table(opening, above) as file:
        reader = csv.reader(file, delimiter=separator, strict=True)
        start = above + 1
        try:
            columns = next(reader, [])
            _check_columns(columns, f"{label}:{start}")
            start = above + reader.line_num + 1
            for values in reader:
                if values:
                    yield start, _table_row(columns, values, separator, f"{label}:{start}")
                start = above + reader.line_num + 1
        except UnicodeDecodeError:
            raise _not_utf8(label, start) from None
        except csv.Error as error:
            raise StageError(f"{label}:{start}: not CSV: {error}") from None


@contextmanager
def _table(opening: Opening, above: int = 0, errors: str = "strict") -> Iterator[TextIO]:
    """Open a table below so many lines."""
    with opening() as binary, io.TextIOWrapper(binary, "utf-8-sig", errors, newline="") as file:
        for _ in range(above):
            file.readline()
        yield file


def _separator(opening: Opening) -> str:
    """Tell what separates the columns: what splits the header most, and the first row as often.

    A comma goes first among equals. In much of Europe, where the comma is the decimal mark,
    spreadsheets save with semicolons.
    """
    widths = {separator: _widths(opening, separator) for separator in SEPARATORS}
    even = [
        separator for separator, (header, row) in widths.items() if 1 < header == (row or header)
    ]
    return max(even or SEPARATORS, key=lambda separator: widths[separator][0])


def _widths(opening: Opening, separator: str) -> tuple[int, int | None]:
    """Count the columns of the header and of the first row, as far as they can be read."""
    with _table(opening, errors="replace") as file:
        rows = csv.reader(file, delimiter=separator, strict=True)
        header: list[str] = []
        try:
            header = next(rows, [])
            first = next(filter(None, rows), None)
        except csv.Error:  # the reading itself will tell
            first = None
    return len(header), None if first is None else len(first)


def _check_columns(columns: list[str], place: str) -> None:
    empty = "" in columns
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if columns and (empty or repeated):
        problem = f"column {repeated[0]!r} twice" if repeated else "a column without a name"
        raise StageError(
            f"{place}: the first line of a CSV file names its columns; it has {problem}"
        )


def _table_row(columns: list[str], values: list[str], separator: str, place: str) -> Row:
    if len(values) != len(columns):
        raise StageError(
            f"{place}: {len(values)} values for {len(columns)} columns",
            hint=f"a value that has {SEPARATORS.get(separator, repr(separator))} or a line break "
            "in it must stand in double quotes",
        )
    return dict(zip(columns, values, strict=True))


def _not_utf8(label: str, number: int) -> StageError:
    return StageError(
        f"{label}:{number}: not UTF-8 text",
        hint="convert the file first, for example: iconv -f cp1252 -t utf-8 OLD > NEW",
    )


def _excerpt(raw: bytes, length: int = 60) -> str:
    text = raw.decode("utf-8", "replace")
    return repr(text if len(text) <= length else text[:length] + "…")
