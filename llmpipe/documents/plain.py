"""Plain text in whatever encoding: by its byte order mark, as UTF-8, or as the bytes suggest."""

from __future__ import annotations

import codecs

from llmpipe.documents.parts import Converted, clean, sections_of
from llmpipe.errors import StageError

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as that of UTF-16 does: it must come first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

CONTROLS = bytes(sorted({*range(1, 32), 127} - set(b"\t\n\v\f\r\b\x1a\x1b")))
"""Bytes that text has no use for."""

BINARY_SHARE = 0.005
"""The share of such bytes from which on a file is no text."""

SAMPLE = 1 << 20
"""Bytes by which an unknown encoding is told."""


def convert(data: bytes, label: str) -> Converted:
    """Read plain text; all of it is one section.

    Raises:
        StageError: it is no text.
    """
    text = clean(decode(data, label))
    return Converted(text, sections_of(text, ()))


def decode(data: bytes, label: str, declared: str | None = None) -> str:
    """Give bytes as text; ``declared`` is the encoding that the text itself claims to be in.

    Raises:
        StageError: they are no text.
    """
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    if is_binary(data):
        raise StageError(f"{label} is a binary file, not text", hint="leave it out by `exclude`")
    for encoding in filter(None, (declared, "utf-8")):
        try:
            return data.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    return _guessed(data, label)


def is_binary(data: bytes) -> bool:
    """Tell whether bytes without a byte order mark are no text."""
    if b"\0" in data:
        return True
    controls = len(data) - len(data.translate(None, CONTROLS))
    return controls > BINARY_SHARE * len(data)


def _guessed(data: bytes, label: str) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(data[:SAMPLE]).best()
    if best is None:
        raise StageError(
            f"{label} is text in no encoding that can be told",
            hint="convert it first, for example: iconv -f cp1252 -t utf-8 OLD > NEW",
        )
    return data.decode(best.encoding, "replace")
