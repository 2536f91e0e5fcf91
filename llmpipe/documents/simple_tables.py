"""Convert HTML tables that contain only words, code and links to Markdown.

Most tables inside Markdown are like that, and importing the HTML converter takes longer than
reading a document. The result is the same as that of `llmpipe.documents.html.fragment`, which
converts all other tables.
"""

from __future__ import annotations

import re

_TEXT = r"[^<>&#`|\\]"
_CODE = r"<code>(?![\s<])[^<>&#`|\\]*(?<!\s)</code>"
_LINK = rf'<a href="https?://[^\s"<>&|]+">(?!\s){_TEXT}+(?<!\s)</a>'
_CELL = rf"<(?:th|td)>(?:{_TEXT}|{_CODE}|{_LINK})*+</(?:th|td)>"
_ROW = rf"<tr>\s*(?:{_CELL}\s*)+</tr>"
_TABLE = re.compile(rf"<table>\s*(?:{_ROW}\s*)+</table>")
_ROWS = re.compile(r"<tr>(.*?)</tr>", re.DOTALL)
_CELLS = re.compile(r"<(th|td)>(.*?)</(th|td)>", re.DOTALL)
_LINKED = re.compile(r'<a href="([^"]*)">([^<]*)</a>')


def written(source: str) -> str:
    """Return a simple table as Markdown, or an empty string for any other."""
    if not _TABLE.fullmatch(source):
        return ""
    rows = [_CELLS.findall(row) for row in _ROWS.findall(source)]
    width = len(rows[0])
    if any(len(row) != width or _kinds(row) != {"td"} for row in rows[1:]):
        return ""
    if len(_kinds(rows[0])) != 1:
        return ""
    lines = ["".join(["|", *(f" {_cell(content)} |" for _, content, _ in row)]) for row in rows]
    if not any(content.strip() for row in rows for _, content, _ in row):
        return ""
    return "\n".join([lines[0], f"|{' --- |' * width}", *lines[1:]])


def _kinds(row: list[tuple[str, str, str]]) -> set[str]:
    return {kind for opened, _, closed in row for kind in (opened, closed)}


def _cell(content: str) -> str:
    linked = _LINKED.sub(_link, content)
    return " ".join(linked.replace("<code>", "`").replace("</code>", "`").split())


def _link(match: re.Match[str]) -> str:
    address, label = match[1], " ".join(match[2].split())
    return f"[{label}]({address})" if label != address else address
