"""Convert Jupyter notebooks: each cell is a section, and code includes its output.

Pictures in the output are left out and reported.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from llmpipe.documents import markdown
from llmpipe.documents.parts import Converted, Heading, clean, sections_of
from llmpipe.errors import StageError

BELOW_ALL = 7
"""The level of a code cell: below every heading."""

_COLORS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_BACKTICKS = re.compile(r"`{3,}")


def convert(data: bytes, label: str) -> Converted:
    """Convert a notebook of any version.

    Raises:
        StageError: it is not a notebook.
    """
    try:
        notebook = msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"))
        return _converted(notebook)
    except (
        msgspec.MsgspecError,
        AttributeError,
        KeyError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise StageError(f"{label} is not a notebook that can be read: {error}") from None


def _converted(notebook: Any) -> Converted:
    language = _language(notebook)
    left_out: Counter[str] = Counter()
    texts: list[str] = []
    headings: list[Heading] = []
    outer = Heading(0, "", 0)
    title, place = "", 0
    for number, cell in enumerate(_cells(notebook), 1):
        if cell.get("cell_type") in ("markdown", "heading"):
            found = markdown.of_text(_source(cell))
            title = title or found.title
            text = found.text.strip("\n")
            inner = [one._replace(start=place + one.start) for one in markdown.headings(text)]
            if not inner or inner[0].start > place:
                headings.append(outer._replace(start=place))
            headings += inner
            outer = inner[-1] if inner else outer
        else:
            text = _code(cell, language, left_out)
            headings.append(Heading(BELOW_ALL, _name(cell, number), place))
        if text.strip():
            texts.append(text + "\n\n")
            place += len(texts[-1])
    whole = "".join(texts)
    named = ", ".join(f"{name} ({count})" for name, count in sorted(left_out.items()))
    remarks = (f"not read: {named}",) if named else ()
    return Converted(whole, sections_of(whole, headings), title, remarks=remarks)


def _name(cell: Mapping[str, Any], number: int) -> str:
    """Return the label beside a cell, or its number if it never ran."""
    counted = cell.get("execution_count", cell.get("prompt_number"))
    return f"In [{counted}]" if counted else f"Cell {number}"


def _cells(notebook: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the cells; old versions keep them in worksheets."""
    if "cells" in notebook:
        yield from notebook["cells"]
    for sheet in notebook.get("worksheets", ()):
        yield from sheet["cells"]


def _language(notebook: Mapping[str, Any]) -> str:
    metadata = notebook.get("metadata") or {}
    for place, name in (("language_info", "name"), ("kernelspec", "language")):
        found = (metadata.get(place) or {}).get(name, "")
        if str(found).isalnum():
            return str(found)
    return ""


def _joined(text: Any) -> str:
    return clean("".join(text) if isinstance(text, list) else str(text or ""))


def _source(cell: Mapping[str, Any]) -> str:
    text = _joined(cell.get("source", cell.get("input", "")))
    level = cell.get("level") if cell.get("cell_type") == "heading" else None
    return f"{'#' * level} {text}" if isinstance(level, int) else text


def _code(cell: Mapping[str, Any], language: str, left_out: Counter[str]) -> str:
    """Return a code cell with its output, or a raw cell unchanged."""
    source = _source(cell).strip("\n")
    if cell.get("cell_type") != "code":
        return source
    printed = (_output(output, left_out) for output in cell.get("outputs", ()))
    blocks = [_fenced(source, language)] if source.strip() else []
    return "\n\n".join([*blocks, *filter(None, printed)])


def _output(output: Mapping[str, Any], left_out: Counter[str]) -> str:
    from llmpipe.documents import html

    if "ename" in output:
        return _fenced(f"{output['ename']}: {_COLORS.sub('', str(output.get('evalue', '')))}", "")
    data = output.get("data") or {}
    if "text/markdown" in data:
        return _joined(data["text/markdown"]).strip("\n")
    if "<table" in (table := _joined(data.get("text/html"))):
        return html.of_text(table, "").text
    text = _joined(data.get("text/plain", output.get("text")))
    if any(kind.startswith("image/") for kind in data) or "png" in output:
        left_out["picture"] += 1
        if not text or text.startswith("<"):
            return ""
    return _fenced(_COLORS.sub("", text), "")


def _fenced(code: str, language: str) -> str:
    code = code.strip("\n")
    if not code.strip():
        return ""
    fence = max(("```", *(run + "`" for run in _BACKTICKS.findall(code))), key=len)
    return f"{fence}{language}\n{code}\n{fence}"
