"""Recognize unsupported file formats, so that they are named and never read as text."""

from __future__ import annotations

import re
from collections import Counter

ENDINGS = {
    ".ai": "a drawing", ".djvu": "DjVu", ".doc": "Word's old format", ".dot": "Word's old format",
    ".eps": "PostScript", ".fodt": "OpenDocument", ".ics": "a calendar", ".key": "Keynote",
    ".mbox": "a mailbox", ".mht": "a saved web page (MHTML)", ".mhtml": "a saved web page (MHTML)",
    ".mobi": "a Kindle book", ".msg": "an Outlook message", ".numbers": "Numbers",
    ".odp": "OpenDocument", ".ods": "OpenDocument", ".odt": "OpenDocument", ".pages": "Pages",
    ".ppt": "PowerPoint's old format", ".ps": "PostScript", ".rtf": "Rich Text (RTF)",
    ".svg": "a drawing (SVG)", ".vcf": "contacts", ".wpd": "WordPerfect",
    ".xls": "Excel's old format", ".xlsb": "Excel's binary format", ".xml": "XML", ".xps": "XPS",
}  # fmt: skip
"""Unsupported formats by file suffix."""

HINT = "save it in a supported format (HTML, DOCX, PDF, plain text), or leave it out with `exclude`"

_BEGINNINGS = (
    (rb"\{\\rtf", ENDINGS[".rtf"]),
    (rb"%!PS", ENDINGS[".ps"]),
    (rb"BEGIN:VCALENDAR", ENDINGS[".ics"]),
    (rb"BEGIN:VCARD", ENDINGS[".vcf"]),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old or encrypted Office file"),
    (rb"PK\x03\x04", "an archive (ZIP)"),
    (rb"From: <Saved by ", ENDINGS[".mht"]),
    (rb"(?:[\w-]+: [^\n]*\n(?:[ \t][^\n]*\n)*){1,30}?Content-Type: multipart/", "a message (MIME)"),
    (rb"<\?xml\b(?!.{0,2000}?<html\b)", ENDINGS[".xml"]),
    (rb"<svg\b", ENDINGS[".svg"]),
)  # fmt: skip
_KINDS = tuple(
    (re.compile(rb"(?is)(?:\xef\xbb\xbf)?\s*" + begins), what) for begins, what in _BEGINNINGS
)


def told(data: bytes) -> str | None:
    """Return the format of a file from its first bytes, or None if they may be text."""
    head = data[:4096].replace(b"\r\n", b"\n")
    return next((what for begins, what in _KINDS if begins.match(head)), None)


def numbered(count: int, one: str, many: str) -> str:
    """Return a count with the right form of its noun."""
    return f"{count:,} {one if count == 1 else many}"


def named_endings(passed_over: Counter[str], most: int = 10) -> str:
    """Return the number of files per suffix as a line; rare suffixes are added up."""
    common = sorted(passed_over.items(), key=lambda item: (-item[1], item[0]))[:most]
    rest = passed_over.total() - sum(count for _, count in common)
    named = [f"{count:,} {ending}" for ending, count in common]
    return ", ".join([*named, *([numbered(rest, "other", "others")] if rest else [])])
