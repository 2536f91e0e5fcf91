"""Open files of rows as UTF-8: unpacked, and read by their byte order mark."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from llmpipe.errors import StageError
from llmpipe.formats.row import RowError

BOM = b"\xef\xbb\xbf"

GZIP = b"\x1f\x8b"
"""How a file begins that gzip packed."""

WIDE = (
    (codecs.BOM_UTF32_LE, "UTF-32"),  # begins as that of UTF-16 does: it must come first
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
"""The byte order marks of other encodings than UTF-8."""

Opening = Callable[[], BinaryIO]
"""Opens the bytes of a file, in UTF-8."""

UNPACKING = (EOFError, zlib.error, gzip.BadGzipFile)
"""What gzip raises about a damaged file."""

Row = dict[str, Any]


def suffix_of(path: Path) -> str:
    """Return a file's ending in small letters, without ``.gz``."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def opening_of(path: Path, label: str, decode: Callable[[bytes], str] | None) -> Opening:
    """Return how to open a file so that it is UTF-8.

    Args:
        path: the file.
        label: what messages call it.
        decode: reads the bytes of a file that is not UTF-8; without it they are an error.

    Raises:
        StageError: the file is not in the encoding that its first bytes name.
    """
    opened = _unpacked(path)
    with opened() as file:
        start = file.read(4)
    wide = next((name for mark, name in WIDE if start.startswith(mark)), None)
    if wide is not None:
        try:
            return partial(io.BytesIO, _all(opened).decode(wide).encode())
        except UnicodeError as error:
            raise StageError(
                f"{label}: not {wide}, as its first bytes say: {error}",
                hint="save it as UTF-8",
            ) from None
    data = _all(opened) if decode is not None else b""
    if decode is not None and not _is_utf8(data):
        return partial(io.BytesIO, decode(data).encode("utf-8", "replace"))
    return opened


def first_byte(opening: Opening) -> bytes:
    """Return the first byte of a file that is not white space."""
    with opening() as file:
        return file.read(4096).removeprefix(BOM).lstrip()[:1]


def _unpacked(path: Path) -> Opening:
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
    if packed:
        return lambda: cast("BinaryIO", gzip.open(path))
    return lambda: path.open("rb", buffering=1 << 20)


def _all(opening: Opening) -> bytes:
    with opening() as file:
        return file.read()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


def not_utf8(label: str, number: int) -> RowError:
    """Return the error for text that is not UTF-8."""
    return RowError(
        f"{label}:{number}: not UTF-8 text",
        hint="convert the file first, for example: iconv -f cp1252 -t utf-8 OLD > NEW",
        reason="not UTF-8",
    )


def excerpt(raw: bytes, length: int = 60) -> str:
    """Return the beginning of some text, quoted."""
    text = raw.decode("utf-8", "replace")
    return repr(text if len(text) <= length else text[:length] + "…")
