"""Convert a file to documents; its name and first bytes decide which converter reads it."""

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
"""Characters that any file may become, however small."""

UNFOLDED = {False: 100, True: 1000}
"""Additional characters per byte of a text file and of a packed file: repeated merged cells and
substitutions lengthen the text."""


class Format(NamedTuple):
    """A file format: its media type, the module that reads it, and the packages it depends on."""

    media_type: str
    module: str
    distributions: tuple[str, ...] = ()
    is_text: bool = False
    """Whether any text could have this format, so that its first bytes must be checked."""
    is_packed: bool = False
    """Whether its text is compressed; deflate reaches at most a factor of a thousand."""


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
"""The formats that are read from folders, by file suffix."""


ARCHIVES = {EPUB: b"application/epub+zip", PPTX: b"ppt/presentation", XLSX: b"xl/workbook",
            DOCX: b"word/"}  # fmt: skip
"""Formats that are archives, with bytes that only they contain."""


class Options(msgspec.Struct, frozen=True):
    """How to read files: the columns of rows, and the size limit of a file in bytes."""

    columns: rows.Columns | None = None
    max_bytes: int = 100_000_000


def convert(
    path: Path, name: str, options: Options, tell: Callable[[str], object] = lambda remark: None
) -> list[Document]:
    """Return the document in a file, or one for each of its rows; a row may be blank.

    Args:
        path: where the file is.
        name: what messages call it, and the id of its document.
        options: how to read it.
        tell: called with remarks for the user, such as a guessed encoding.
    Raises:
        StageError: the file is too large, damaged, encrypted or binary, contains no text, or
            becomes much longer text than its size allows.
        MissingColumnError: its rows do not have the columns.
        MissingDependencyError: the package that reads such files is not installed.
    """
    data = _read(path, name, options.max_bytes)
    format_ = format_of(path, data)
    what = foreign.told(data) if format_.is_text else None
    if format_ is PLAIN:
        what = foreign.ENDINGS.get(path.suffix.lower(), what)
    if what is not None:
        raise StageError(f"{name} is {what}, which cannot be read", hint=foreign.HINT)
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
        raise StageError(f"{name} contains no text", hint="leave it out with `exclude`")
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
    """Return the format of a file, from its first bytes if they are clear, else from its name."""
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
                hint="split it, leave it out with `exclude`, or raise `max_bytes`",
            )
        return path.read_bytes()
    except OSError as error:
        raise StageError(f"{label} cannot be read: {error.strerror or error}") from None


def _check_length(found: Converted, size: int, format_: Format, label: str) -> None:
    """Check that a file's text and metadata are not much longer than the file.

    Raises:
        StageError: they are.
    """
    names = sum(len(title) for section in found.sections for title in section.path)
    values = sum(len(str(value)) for value in found.metadata.values())
    length, most = len(found.text) + names + values, ROOM + UNFOLDED[format_.is_packed] * size
    if length > most:
        raise StageError(
            f"{label}, of {_megabytes(size)}, becomes {length:,} characters in "
            f"{len(found.sections):,} sections; the limit for its size is {most:,}",
            hint="its content repeats itself: leave it out with `exclude`",
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
