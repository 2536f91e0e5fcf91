"""Decode plain text: by byte order mark, as UTF-8, by its declaration, or by a guess.

A guess is reported with its probability.
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from llmpipe.documents import plain_tables
from llmpipe.documents.guess import guess
from llmpipe.documents.parts import Converted, clean, sections_of
from llmpipe.errors import StageError

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # must come before UTF-16, whose mark begins the same
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

CONTROLS = bytes(sorted({*range(1, 32), 127} - set(b"\t\n\v\f\r\b\x1a\x1b")))
"""Bytes that do not occur in text."""

BINARY_SHARE = 0.005
"""Share of such bytes above which a file is binary."""

SAMPLE = 1 << 20
"""How many bytes are examined for an unknown encoding."""

MEANT = {
    "ascii": "cp1252", "big5": "big5hkscs", "euc-kr": "cp949", "gb2312": "gb18030",
    "gbk": "gb18030", "iso-8859-1": "cp1252", "iso-8859-9": "cp1254", "iso8859-1": "cp1252",
    "ks_c_5601-1987": "cp949", "latin-1": "cp1252", "latin1": "cp1252", "shift-jis": "cp932",
    "shift_jis": "cp932", "tis-620": "cp874", "us-ascii": "cp1252", "x-sjis": "cp932",
}  # fmt: skip
"""The encodings that declared names stand for in practice, as in browsers."""

SEVEN_BITS = {"iso-2022-jp", "iso-2022-kr", "hz-gb-2312", "hz"}
"""Encodings whose bytes are also valid UTF-8, with another meaning."""

WIDE = ("utf_16", "utf_16_be", "utf_16_le", "utf_32", "utf_32_be", "utf_32_le", "utf_7")
"""Encodings that a guess must not return: text in them has a mark or zero bytes."""

BAD_SHARE = 0.2
"""Share of the characters beyond ASCII that may be damaged in UTF-8 text."""

_COOKIE = re.compile(rb"\b(?:file)?(?:en)?coding[:=][ \t]*([-\w.]+)")


class Decoded(NamedTuple):
    """Decoded text, and remarks for the user about how it was decoded."""

    text: str
    remarks: tuple[str, ...] = ()


def convert(data: bytes, label: str) -> Converted:
    """Convert plain text as one section, with drawn tables as Markdown tables.

    Raises:
        StageError: it is not text.
    """
    decoded = decode(data, label)
    text = plain_tables.as_markdown(clean(decoded.text))
    return Converted(text, sections_of(text, ()), remarks=decoded.remarks)


def decode(data: bytes, label: str, declared: str | None = None, language: str = "") -> Decoded:
    """Decode bytes.

    Args:
        data: the bytes of a file.
        label: what messages call the file.
        declared: the encoding that the text declares.
        language: the code of the language that it declares.

    Raises:
        StageError: they are not text.
    """
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return Decoded(data.decode(encoding, "replace"))
    wide = _wide(data)
    if wide is None and is_binary(data):
        raise StageError(f"{label} is a binary file, not text", hint="leave it out with `exclude`")
    if wide is not None:
        return Decoded(data.decode(wide, "replace"), (_remark(wide, 0.95),))
    declared = (declared or _cookie(data) or "").strip().lower()
    first = [declared] if declared in SEVEN_BITS else []
    for encoding in (*first, "utf-8", MEANT.get(declared, declared)):
        try:
            return Decoded(data.decode(encoding))
        except (UnicodeError, LookupError, ValueError):
            continue
    return _damaged(data) or _guessed(data, label, language)


def is_binary(data: bytes) -> bool:
    """Return whether bytes without a byte order mark are binary."""
    if b"\0" in data:
        return True
    controls = len(data) - len(data.translate(None, CONTROLS))
    return controls > BINARY_SHARE * len(data)


def _wide(data: bytes) -> str | None:
    """Return the UTF-16 variant of bytes without a mark: in Latin text, every other byte is 0."""
    sample = data[:SAMPLE]
    if b"\0" not in sample[:64] or len(data) % 2:
        return None
    even, odd = sample[::2], sample[1::2]
    for encoding, low, high in (("utf-16-le", even, odd), ("utf-16-be", odd, even)):
        if 2 * high.count(0) > len(high) and not low.count(0) and not is_binary(low):
            return encoding
    return None


def _cookie(data: bytes) -> str | None:
    """Return the encoding that the first or last lines declare for editors."""
    lines = [*data[:1024].split(b"\n")[:2], *data[-1024:].split(b"\n")[-5:]]
    found = next(filter(None, map(_COOKIE.search, lines)), None)
    return found[1].decode("ascii", "replace") if found else None


def _damaged(data: bytes) -> Decoded | None:
    """Decode bytes as UTF-8 if few are invalid, for example in a file that was cut or joined."""
    text = data.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    whole = len(text) - len(text.encode("ascii", "ignore")) - bad
    if bad > BAD_SHARE * whole:
        return None
    return Decoded(text, (f"UTF-8 with damaged bytes in {bad} places, each read as \ufffd",))


def _guessed(data: bytes, label: str, language: str) -> Decoded:
    found = guess(data, language)
    if found is not None:
        text = data.decode(found.encoding, "replace")
        return Decoded(text, (_remark(found.encoding, found.sure),))
    from charset_normalizer import from_bytes

    best = from_bytes(data[:SAMPLE], cp_exclusion=list(WIDE)).best()
    if best is None:
        raise StageError(
            f"{label} is in an encoding that is not recognized",
            hint="convert it first, for example: iconv -f cp1252 -t utf-8 OLD > NEW",
        )
    return Decoded(data.decode(best.encoding, "replace"), (_remark(best.encoding, 0.3),))


def _remark(encoding: str, sure: float) -> str:
    return (
        f"neither UTF-8 nor marked as anything else: read as {encoding}, {sure:.0%} sure "
        f"(to be sure, convert it: iconv -f {encoding} -t utf-8)"
    )
