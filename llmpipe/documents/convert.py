"""Make documents of a file: which converter reads it is told by its name and its first bytes."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from llmpipe.documents import foreign, rows
from llmpipe.documents.model import Document, untitled
from llmpipe.documents.parts import Converted, sections_of
from llmpipe.errors import MissingDependencyError, StageError

MARKUP = ("markdown-it-py",)
PAGE = ("beautifulsoup4", "lxml", "markdownify", "soupsieve", *MARKUP)
WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


ROOM = 1_000_000
"""Characters that the smallest file may become."""

UNFOLDED = {False: 100, True: 1000}
"""Characters that a byte of a file may become besides, in text and in what is packed: merged cells
and substitutions are repeated."""


class Format(NamedTuple):
    """A kind of file: its media type, the module that reads it, and what shapes the text."""

    media_type: str
    module: str
    distributions: tuple[str, ...] = ()
    is_text: bool = False
    """Whether any text could be one, so that its first bytes have to say what else it may be."""
    is_packed: bool = False
    """Whether its text is packed, by deflate that is, to a thousandth at the least."""


MARKDOWN = Format("text/markdown", "markdown", ("charset-normalizer", *PAGE), is_text=True)
PLAIN = Format("text/plain", "plain", ("charset-normalizer",), is_text=True)
HTML = Format("text/html", "html", ("charset-normalizer", *PAGE), is_text=True)
XHTML = HTML._replace(media_type="application/xhtml+xml")
PDF = Format("application/pdf", "pdf", ("pypdfium2",), is_packed=True)
DOCX = Format(WORD, "docx", ("mammoth", *PAGE), is_packed=True)
PPTX = Format(
    "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "pptx",
    PAGE,
    is_packed=True,
)
XLSX = Format(
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xlsx",
    ("openpyxl", *MARKUP),
    is_packed=True,
)
EPUB = Format("application/epub+zip", "epub", ("charset-normalizer", *PAGE), is_packed=True)
RST = Format("text/x-rst", "rst", ("charset-normalizer", "docutils"), is_text=True)

FORMATS = {
    ".csv": Format("text/csv", "rows", ("charset-normalizer",)),
    ".docm": DOCX,
    ".docx": DOCX,
    ".eml": Format("message/rfc822", "eml", ("charset-normalizer", *PAGE)),
    ".epub": EPUB,
    ".htm": HTML,
    ".html": HTML,
    ".ipynb": Format("application/x-ipynb+json", "ipynb", PAGE),
    ".json": Format("application/json", "rows"),
    ".jsonl": Format("application/jsonl", "rows"),
    ".markdown": MARKDOWN,
    ".md": MARKDOWN,
    ".pdf": PDF,
    ".pptm": PPTX,
    ".pptx": PPTX,
    ".rst": RST,
    ".text": PLAIN,
    ".tsv": Format("text/tab-separated-values", "rows", ("charset-normalizer",)),
    ".txt": PLAIN,
    ".xhtml": XHTML,
    ".xlsm": XLSX,
    ".xlsx": XLSX,
}
"""What is taken from folders, by the end of its name."""


ARCHIVES = {EPUB: b"application/epub+zip", PPTX: b"ppt/presentation", XLSX: b"xl/workbook",
            DOCX: b"word/"}  # fmt: skip
"""Formats that are archives, with what only they hold."""


class Options(msgspec.Struct, frozen=True):
    """How to read files: the columns of rows, and the bytes of the largest file that is read."""

    columns: rows.Columns | None = None
    max_bytes: int = 100_000_000


def convert(
    path: Path, name: str, options: Options, tell: Callable[[str], object] = lambda remark: None
) -> list[Document]:
    """Give the document that a file holds, or one for each of its rows; a row may be blank.

    Args:
        path: where the file is.
        name: what it is called in messages, and the id of its document.
        options: how to read it.
        tell: hears what a person should know of the conversion, such as a guess.

    Raises:
        StageError: the file is too large, damaged, encrypted, binary, holds no text, or becomes far
            more than it is.
        MissingColumnError: its rows do not have the columns.
        MissingDependencyError: the package that reads such files is not installed.
    """
    data = _read(path, name, options.max_bytes)
    format_ = format_of(path, data)
    what = foreign.told(data) if format_.is_text else None
    if format_ is PLAIN:
        what = foreign.ENDINGS.get(path.suffix.lower(), what)
    if what is not None:
        raise StageError(f"{name} is {what}, which is not read", hint=foreign.HINT)
    digest = hashlib.sha256(data).hexdigest()
    try:
        if format_.module == "rows":
            return list(_rows(path, name, options, format_, digest, tell))
        converter = importlib.import_module(f"llmpipe.documents.{format_.module}")
        found: Converted = converter.convert(data, name)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"reading {name} needs the package {error.name}", hint="pip install 'llmpipe[rag]'"
        ) from None
    for remark in found.remarks:
        tell(remark)
    _check_length(found, len(data), format_, name)
    if not found.text.strip():
        raise StageError(f"{name} holds no text", hint="leave it out by `exclude`")
    return [
        Document(
            id=name,
            title=found.title or untitled(path.name),
            media_type=format_.media_type,
            source_digest=digest,
            text=found.text,
            sections=found.sections,
            pages=found.pages,
            metadata=dict(found.metadata),
        )
    ]


def format_of(path: Path, data: bytes) -> Format:
    """Tell what a file is: by its first bytes where these are plain, else by its name."""
    if data.startswith(b"%PDF-"):
        return PDF
    known = FORMATS.get(path.suffix.lower())
    if data.startswith(b"PK\x03\x04") and known not in ARCHIVES:
        return next((format_ for format_, mark in ARCHIVES.items() if mark in data), known or PLAIN)
    if known is None and data[:1024].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return HTML
    return known or PLAIN


def _read(path: Path, label: str, max_bytes: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise StageError(
                f"{label} is {_megabytes(size)}; files of up to {_megabytes(max_bytes)} are read",
                hint="split it, leave it out by `exclude`, or raise `max_bytes`",
            )
        return path.read_bytes()
    except OSError as error:
        raise StageError(f"{label} cannot be read: {error.strerror or error}") from None


def _check_length(found: Converted, size: int, format_: Format, label: str) -> None:
    """Make sure that a file is not unfolded into far more than it is, its metadata included.

    Raises:
        StageError: it is.
    """
    names = sum(len(title) for section in found.sections for title in section.path)
    values = sum(len(str(value)) for value in found.metadata.values())
    length, most = len(found.text) + names + values, ROOM + UNFOLDED[format_.is_packed] * size
    if length > most:
        raise StageError(
            f"{label}, of {_megabytes(size)}, becomes {length:,} characters in "
            f"{len(found.sections):,} sections; at most {most:,} are taken of its size",
            hint="it repeats itself: leave it out by `exclude`",
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1_000_000 else f"{size:,} bytes"


def _rows(
    path: Path,
    name: str,
    options: Options,
    format_: Format,
    digest: str,
    tell: Callable[[str], object],
) -> Iterator[Document]:
    for row in rows.read(path, name, options.columns, tell):
        yield Document(
            id=f"{name}#{row.name}",
            title=row.title or untitled(path.name, row.name),
            media_type=format_.media_type,
            source_digest=digest,
            text=row.text,
            sections=sections_of(row.text, ()),
            metadata=row.metadata,
            row=row.number,
        )
